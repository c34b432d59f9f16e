"""nanbeige: as llama, through all layers several times; each pass but the last may end with the output's norm.

Source: llama.cpp 0c1e570 src/models/nanbeige.cpp, llama_model_nanbeige::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm")
    normed = not b.keys.flag("skip_loop_final_norm", False)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        of = b.h.weights_of[il]
        b.take_scales_of(il)  # copies of a layer are made before it gets its scales
        residual = x
        q, k, v = b.qkv(_normed(b, x, "attn_norm", of, il), of)
        factors = b.rope_factors(of)
        q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        x = b.linear("attn_output", of, attention[b.kv_cache(il)].mix(q, k, v, il))
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(b.ffn_gated(_normed(b, residual, "ffn_norm", of, il), of), residual)
        _, ends = b.h.runs[il]
        if normed and ends and not b.is_last(il):
            x = _normed(b, x, "output_norm", None, il)
    return b.head(b.rms(x, "output_norm"))


def _normed(b: Builder, x: Tensor, name: str, of: int | None, il: int) -> Tensor:
    """X normed by a gain of another layer, or of the output: it belongs to the layer that runs."""
    normed = b.rms(x, name, of)
    b.pin(normed.src[0], il)
    return normed
