"""rwkv6qwen2: time mixing of rwkv6 in the place of qwen2's attention.

Source: llama.cpp 0c1e570 src/models/rwkv6qwen2.cpp, llama_model_rwkv6qwen2::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.building.rwkv import before, last, read_shifts, store_shifts, time_mix_6
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models.rwkv6 import TimeMix


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""

    def time_mix(rs: Recurrent, x: Tensor, x_prev: Tensor, il: int) -> Tensor:
        return time_mix_6(b, rs, x, x_prev, il)

    return build_with(b, time_mix)


def build_with(b: Builder, time_mix: TimeMix) -> Graph:
    """The whole graph, with this mixing of tokens."""
    n_embd, n_tokens = b.h.n_embd, b.batch.n_tokens
    x = b.inp_embd()
    rs = Recurrent(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        x = ops.reshape(x, n_embd, rs.n_seq_tokens, rs.n_seqs)
        shift = read_shifts(b, rs, il)
        att = b.rms(x, "attn_norm", il)
        mixed = time_mix(rs, att, before(att, shift), il)
        store_shifts(b, rs, last(att), il)
        residual = ops.reshape(ops.add(mixed, x), n_embd, n_tokens)
        (residual,) = b.wanted(out_ids, il, residual)
        x = b.ffn_gated(b.rms(residual, "ffn_norm", il), il)
        x = ops.add(x, residual)
    return b.head(b.rms(x, "output_norm"))
