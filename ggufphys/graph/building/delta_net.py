"""Gated delta nets: linear attention whose state forgets by a gate and corrects what it already holds for a key.

Legend: D head size, H heads of values, K heads of keys, T tokens of a sequence, N n_seqs.
Source: llama.cpp 0c1e570 src/models/delta-net-base.cpp.
"""

from collections.abc import Iterable
from math import inf

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.delta_chunks import in_chunks
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import Unary
from ggufphys.graph.ssm_ops import gated_delta_net, ssm_conv


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
    d, n_head, n_tokens, n_seqs = v.ne
    if n_tokens > 1 and "delta_nets_in_chunks" in rs.b.context.rules:
        out, state = in_chunks(q, k, v, gate, beta, state, transposed=True)
        rs.b.graph.expand(ops.cpy(state, rs.slot(rs.rows("s", il), 0)))
        return out
    n_snapshots = 1 + rs.b.context.n_rs_seq
    one_by_one = n_snapshots > 1 and "snapshots_one_by_one" in rs.b.context.rules
    if one_by_one:  # a place for each, in front of the scan, too
        state = ops.pad(ops.reshape(state, d * d * n_head, 1, n_seqs), d * d * n_head, n_snapshots, n_seqs)
    result = gated_delta_net(q, k, v, gate, beta, state, n_snapshots)
    row = result.nb[0] * d
    out = ops.strided(result, v.ne, (row, row * n_head, row * n_head * n_tokens))
    behind = row * n_head * n_tokens * n_seqs
    if n_snapshots > 1 and not one_by_one:
        rs.store_states(result, behind, il)
        return out
    for i in range(n_snapshots):  # the latest last
        start = behind + i * row * d * n_head * n_seqs
        left = ops.strided(result, (d, d, n_head, n_seqs), (row, row * d, row * d * n_head), start)
        rs.b.graph.expand(ops.cpy(left, rs.slot(rs.rows("s", il), n_snapshots - 1 - i)))
    return out


def linear_attention(
    b: Builder, rs: Recurrent, x: Tensor, z: Tensor, gate: Tensor, beta: Tensor, il: int,
    *, repeat_keys: bool = False, gated_by: Unary = "silu",
) -> Tensor:  # fmt: skip
    """A convolution's input (d_conv - 1 + T, 2*D*K + D*H, N), convolved, a delta net, the result gated by Z: (E, T*N).

    Heads of keys are as many as groups; with `repeat_keys` each becomes as many as there are heads of values to it.
    """
    h, n_tokens, n_seqs = b.h, rs.n_seq_tokens, rs.n_seqs
    d_k, n_k, n_v = h.ssm_d_state, h.ssm_n_group, gate.ne[1]
    d_v, per_k = h.ssm_d_inner // n_v, n_v // n_k
    state = read_state(rs, d_v, n_v, il)
    x = ops.unary(ssm_conv(x, b.weight("ssm_conv1d.weight", il)), "silu")
    size, per_token = x.nb[0], x.nb[1]
    strides = (per_token, per_token * n_tokens)
    q = ops.strided(x, (d_k, n_k, n_tokens, n_seqs), (d_k * size, *strides))
    k = ops.strided(x, (d_k, n_k, n_tokens, n_seqs), (d_k * size, *strides), d_k * n_k * size)
    v = ops.strided(x, (d_v, n_v, n_tokens, n_seqs), (d_v * size, *strides), 2 * d_k * n_k * size)
    q, k = l2_norm(b, q), l2_norm(b, k)
    if repeat_keys and n_k != n_v:  # those that are alike follow each other
        q, k = (ops.reshape(part, d_k, 1, n_k, n_tokens * n_seqs) for part in (q, k))
        q, k = (ops.repeat(part, d_k, per_k, n_k, n_tokens * n_seqs) for part in (q, k))
        q, k = (ops.reshape(part, d_k, n_v, n_tokens, n_seqs) for part in (q, k))
    elif n_k != n_v and "delta_nets_in_chunks" in b.context.rules:
        q, k = (ops.repeat(part, d_k, n_v, n_tokens, n_seqs) for part in (q, k))

    out = delta_net(rs, q, k, v, gate, beta, state, il)
    out = gated_norm(b, out, ops.reshape(z, d_v, n_v, n_tokens, n_seqs), il, gated_by)
    out = b.linear("ssm_out", il, ops.reshape(out, d_v * n_v, n_tokens, n_seqs))
    return ops.reshape(out, h.n_embd, n_tokens * n_seqs)


def l2_norm(b: Builder, x: Tensor, eps: float | None = None) -> Tensor:
    """X / |x|, row by row, by way of the RMS norm. Source: src/models/models.h, build_gdn_l2_norm."""
    n = x.ne[0]
    if "l2_norm_op" in b.context.rules:
        return ops.l2_norm(x, b.norm_rms_eps if eps is None else eps)
    return ops.scale(ops.rms_norm(x, (b.norm_rms_eps if eps is None else eps) / n), 1 / sqrtf(n))


def gated_norm(b: Builder, x: Tensor, gate: Tensor, il: int, kind: Unary = "silu") -> Tensor:
    """The normed X times an activation of the gate, same shapes."""
    return ops.mul(b.rms(x, "ssm_norm", il), ops.unary(gate, kind))


# -- Kimi delta attention: a gate for each element of a head


def convolved_parts(
    rs: Recurrent, parts: tuple[Tensor, Tensor, Tensor], il: int, slots: Iterable[int] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K and V (D*H, T*N), each convolved by itself: (D, H, T, N). R holds the last inputs of one behind the other's.

    Those of `slots` tokens ago are stored too, as many as are in the batch unless told.

    Source: llama.cpp 0c1e570 src/models/kimi-linear.cpp, causal_conv1d; src/models/bailingmoe3.cpp.
    """
    b, rows = rs.b, rs.rows("r", il)
    state = rs.read(rows)
    kernels = (b.weight(f"ssm_conv1d_{name}.weight", il) for name in "qkv")
    q, k, v = (
        _convolved_part(rs, x, rows, state, i, kernel, rs.slots() if slots is None else slots)
        for i, (x, kernel) in enumerate(zip(parts, kernels, strict=True))
    )
    return q, k, v


def _convolved_part(
    rs: Recurrent, x: Tensor, rows: Tensor, state: Tensor, i: int, kernel: Tensor, slots: Iterable[int]
) -> Tensor:
    b, n_seqs = rs.b, rs.n_seqs
    d_inner, d_conv = x.ne[0], kernel.ne[0]
    n_last, size = d_conv - 1, x.nb[0]
    shape, offset = (n_last, d_inner, n_seqs), i * n_last * d_inner * size
    last = ops.strided(state, shape, (n_last * size, state.nb[1]), offset)
    x = ops.concat(last, ops.transpose(ops.reshape(x, d_inner, rs.n_seq_tokens, n_seqs)), 0)
    for slot in slots:
        kept = ops.strided(x, shape, x.nb[1:3], max(x.ne[0] - n_last - slot, 0) * size)
        older = rs.offset(rows, slot)
        b.graph.expand(ops.cpy(kept, ops.strided(rows, shape, (n_last * size, rows.nb[1]), older + offset)))
    x = ops.reshape(ssm_conv(x, ops.reshape(kernel, d_conv, d_inner)), d_inner, b.batch.n_tokens)
    d = b.h.n_embd_head_kda
    return ops.reshape(ops.unary(x, "silu"), d, d_inner // d, rs.n_seq_tokens, n_seqs)


def decay_gate(b: Builder, x: Tensor, il: int) -> Tensor:
    """How much of the state each element of a head keeps, as a logarithm (D, H, T*N), bounded if the file says so.

    Source: llama.cpp 0c1e570 src/models/kimi-k3.cpp, src/models/glm5-next.cpp.
    """
    n_head = b.h.n_head[0]
    gate = ops.mul_mat(b.weight("ssm_f_b.weight", il), ops.mul_mat(b.weight("ssm_f_a.weight", il), x))
    gate = ops.add(gate, b.weight("ssm_dt.bias", il))
    a, shape = ops.reshape(b.weight("ssm_a", il), 1, n_head, 1), (b.h.n_embd_head_kda, n_head, x.ne[1])
    bound = b.keys.real("kda.gate_lower_bound", -inf)
    if bound == -inf:
        return ops.mul(ops.reshape(ops.unary(gate, "softplus"), *shape), a)
    gate = ops.scale(ops.mul(ops.reshape(gate, *shape), a), -1.0)
    return ops.scale(ops.unary(gate, "sigmoid"), bound)


def kda(
    rs: Recurrent, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, beta: Tensor, out_gate: Tensor, il: int,
    *, l2_eps: float | None = None,
) -> Tensor:  # fmt: skip
    """Q, K and V (D, H, T, N) to (E, T*N); `gate` and `out_gate` (D*H, T*N) and `beta` (H, T*N) are products.

    `l2_eps` is what |q| and |k| are not less than, if that is not the RMS norms'.
    """
    b, n_tokens = rs.b, rs.b.batch.n_tokens
    d, n_head, *rest = v.ne
    gate = ops.reshape(gate, d, n_head, *rest)
    beta = ops.unary(ops.reshape(beta, 1, n_head, *rest), "sigmoid")
    state = read_state(rs, d, n_head, il)
    out = ops.cont(delta_net(rs, l2_norm(b, q, l2_eps), l2_norm(b, k, l2_eps), v, gate, beta, state, il))
    out = b.rms(ops.reshape(out, d, n_head, n_tokens), "ssm_norm", il)
    out = ops.mul(out, ops.unary(ops.reshape(out_gate, d, n_head, n_tokens), "sigmoid"))
    return ops.mul_mat(b.weight("attn_output.weight", il), ops.cont(out, d * n_head, n_tokens))
