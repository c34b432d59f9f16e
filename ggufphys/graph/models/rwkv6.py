"""rwkv6: time mixing, then channel mixing, each with the token before.

Source: llama.cpp 0c1e570 src/models/rwkv6.cpp, llama_model_rwkv6::graph.
"""

from collections.abc import Callable

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.building.rwkv import before, last, lerp, read_shifts, store_shifts, time_mix_6
from ggufphys.graph.ir import Graph, Tensor

TimeMix = Callable[[Recurrent, Tensor, Tensor, int], Tensor]
"""From a layer's stream and the tokens before (E, T, N) to what is added to it."""


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""

    def time_mix(rs: Recurrent, x: Tensor, x_prev: Tensor, il: int) -> Tensor:
        return time_mix_6(b, rs, x, x_prev, il)

    def channel_mix(x: Tensor, x_prev: Tensor, il: int) -> Tensor:
        sx = ops.sub(x_prev, x)
        xk, xr = (lerp(b, x, sx, f"channel_mix_lerp_{name}", il) for name in "kr")
        r = ops.unary(b.linear("channel_mix_receptance", il, xr), "sigmoid")
        k = ops.sqr(ops.unary(b.linear("channel_mix_key", il, xk), "relu"))
        return ops.mul(r, b.linear("channel_mix_value", il, k))

    return build_with(b, time_mix, channel_mix, rescales=True)


def build_with(
    b: Builder, time_mix: TimeMix, channel_mix: Callable[[Tensor, Tensor, int], Tensor], *, rescales: bool = False
) -> Graph:
    """The whole graph, with this mixing of tokens and of channels."""
    n_embd, n_tokens = b.h.n_embd, b.batch.n_tokens
    x = b.layer_norm(b.inp_embd(), "token_embd_norm")
    rs = Recurrent(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        x = ops.reshape(x, n_embd, rs.n_seq_tokens, rs.n_seqs)
        shifts = read_shifts(b, rs, il)
        shift_1, shift_2 = (
            ops.strided(shifts, (n_embd, 1, rs.n_seqs), shifts.nb[1:3], i * n_embd * shifts.nb[0]) for i in range(2)
        )
        att = b.layer_norm(x, "attn_norm", il)
        mixed = time_mix(rs, att, before(att, shift_1), il)
        residual = ops.add(mixed, x)
        x = b.layer_norm(residual, "attn_norm_2", il)
        x_prev = before(x, shift_2)
        store_shifts(b, rs, ops.concat(last(att), last(x), 1), il)
        residual, x, x_prev = (ops.reshape(y, n_embd, n_tokens) for y in (residual, x, x_prev))
        residual, x, x_prev = b.wanted(out_ids, il, residual, x, x_prev)
        x = ops.add(channel_mix(x, x_prev, il), residual)
        if rescales and b.h.rescaled[il]:
            x = ops.scale(x, 0.5)
    return b.head(b.layer_norm(x, "output_norm"))
