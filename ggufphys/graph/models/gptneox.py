"""gptneox: layer norms; attention and feed-forward side by side where the file says so.

Source: llama.cpp 0c1e570 src/models/gptneox.cpp, llama_model_gptneox::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    is_parallel = b.keys.flag("use_parallel_residual", True)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.layer_norm(x, "attn_norm", il), il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        if is_parallel:
            out = b.ffn_plain(b.layer_norm(residual, "ffn_norm", il), il, "gelu")
            x = ops.add(ops.add(out, residual), x)
        else:
            residual = ops.add(x, residual)
            x = ops.add(b.ffn_plain(b.layer_norm(residual, "ffn_norm", il), il, "gelu"), residual)
    return b.head(b.layer_norm(x, "output_norm"))
