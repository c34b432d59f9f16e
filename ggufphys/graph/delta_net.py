"""Gated delta nets: linear attention whose state forgets by a gate and corrects what it already holds for a key.

Legend: D head size, H heads of values, K heads of keys, T tokens of a sequence, N n_seqs.
Source: llama.cpp 0c1e570 src/models/delta-net-base.cpp.
"""

from math import sqrt

from ggufphys.graph import ops
from ggufphys.graph.blocks import Builder
from ggufphys.graph.ir import Tensor
from ggufphys.graph.recurrent import Recurrent
from ggufphys.graph.ssm_ops import gated_delta_net


def all_slots(rs: Recurrent) -> range:
    """The convolution's rows that a delta net writes, the oldest first."""
    return range(rs.b.context.n_rs_seq, -1, -1)


def read_state(rs: Recurrent, d: int, n_head: int, il: int) -> Tensor:
    """The sequences' states (D, D, H, N)."""
    return ops.reshape(rs.read(rs.rows("s", il)), d, d, n_head, rs.n_seqs)


def delta_net(
    rs: Recurrent, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, beta: Tensor, state: Tensor, il: int
) -> Tensor:
    """Q, K and V (D, H, T, N) to (D, H, T, N), and the states stored. `gate` (1 or D, H, T, N), `beta` (1, H, T, N)."""
    result = gated_delta_net(q, k, v, gate, beta, state, 1 + rs.b.context.n_rs_seq)
    d, n_head, n_tokens, n_seqs = v.ne
    row = result.nb[0] * d
    out = ops.strided(result, v.ne, (row, row * n_head, row * n_head * n_tokens))
    behind = row * n_head * n_tokens * n_seqs
    if rs.b.context.n_rs_seq:
        rs.store_states(result, behind, il)
    else:
        left = ops.strided(result, state.ne, (row, row * d, row * d * n_head), behind)
        rs.b.graph.expand(ops.cpy(left, rs.slot(rs.rows("s", il), 0)))
    return out


def l2_norm(b: Builder, x: Tensor) -> Tensor:
    """X / |x|, row by row, by way of the RMS norm. Source: src/models/models.h, build_gdn_l2_norm."""
    n = x.ne[0]
    return ops.scale(ops.rms_norm(x, b.norm_rms_eps / n), 1 / sqrt(n))


def gated_norm(b: Builder, x: Tensor, gate: Tensor, il: int) -> Tensor:
    """The normed X times silu(gate), same shapes."""
    return ops.mul(b.norm_rms(x, b.weight("ssm_norm.weight", il)), ops.unary(gate, "silu"))
