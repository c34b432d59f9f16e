"""gemma-embedding: as gemma3 without a cache.

Source: llama.cpp 0c1e570 src/models/gemma-embedding.cpp, llama_model_gemma_embedding::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.attention_alone import AttentionAlone, sees_window
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_rope_swa


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    full = read_rope(b.keys, b.h, "neox")
    rope_swa = read_rope_swa(b.keys, full)
    x = b.inp_embd(token_scale=sqrtf(b.h.n_embd))
    pos = b.inp_pos()
    attend = AttentionAlone(b, Scores(factor=1.0))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        rope = rope_swa if sees_window(b, il) else full
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q = b.rope(b.rms(q, "attn_q_norm", il), pos, None, rope)
        k = b.rope(b.rms(k, "attn_k_norm", il), pos, None, rope)
        x, residual = b.wanted(out_ids, il, attend(ops.scale(q, 1 / sqrtf(b.h.n_embd_head_k)), k, v, il), residual)
        residual = ops.add(b.rms(x, "post_attention_norm", il), residual)
        x = b.ffn_gated(b.rms(residual, "ffn_norm", il), il, "geglu")
        x = ops.add(b.rms(x, "post_ffw_norm", il), residual)
    return b.embeddings(b.rms(x, "output_norm"))
