"""modern-bert: layer norms, windows with a rotation of their own in most layers, no cache.

Source: llama.cpp 0c1e570 src/models/modern-bert.cpp, llama_model_modern_bert::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention_alone import AttentionAlone, sees_window
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_rope_swa


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    full = read_rope(b.keys, b.h, "neox")
    rope_swa = read_rope_swa(b.keys, full)
    x = b.layer_norm(b.inp_embd(), "token_embd_norm")
    pos = b.inp_pos()
    attend = AttentionAlone(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        if b.weight_or_none("attn_norm.weight", il) is not None:  # not in the first layer
            x = b.layer_norm(x, "attn_norm", il)
        rope = rope_swa if sees_window(b, il) else full
        q, k, v = b.qkv(x, il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x, residual = b.wanted(out_ids, il, attend(q, k, v, il, biased=False), residual)
        residual = ops.add(x, residual)
        x = ops.add(b.ffn_halves(b.layer_norm(residual, "ffn_norm", il), il, "geglu"), residual)
    return b.embeddings(b.layer_norm(x, "output_norm"))
