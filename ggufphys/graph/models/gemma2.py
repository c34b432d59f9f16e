"""gemma2: norms before and behind each half of a layer, windows, soft caps on scores and logits.

Source: llama.cpp 0c1e570 src/models/gemma2.cpp, llama_model_gemma2::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_rope_swa_alike

N_LAYER_27B = 46  # the model whose queries are scaled by the embedding's width, not the head's


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    full = read_rope(b.keys, h, "neox")
    rope_swa = read_rope_swa_alike(b.keys, full)
    width = h.n_embd // h.n_head[0] if h.n_layer == N_LAYER_27B else h.n_embd_head_k
    x = ops.scale(b.inp_embd(), sqrtf(h.n_embd))
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=1.0, softcap=b.keys.real("attn_logit_softcapping", 50.0)))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        rope = rope_swa if b.has_window(il) else full
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](ops.scale(q, 1 / sqrtf(width)), k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(b.rms(x, "post_attention_norm", il), residual)
        x = b.ffn_gated(b.rms(residual, "ffn_norm", il), il, "geglu")
        x = ops.add(b.rms(x, "post_ffw_norm", il), residual)
    return b.head(b.rms(x, "output_norm"), softcap=b.keys.real("final_logit_softcapping", 30.0))
