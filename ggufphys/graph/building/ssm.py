"""State space layers: what mamba and mamba 2 do between a layer's norm and its residual.

Legend: T tokens of a sequence, N n_seqs, C channels of the convolution, D head size, H heads.
Source: llama.cpp 0c1e570 src/models/mamba-base.cpp.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ssm_ops import ssm_conv, ssm_scan


def mamba2(b: Builder, rs: Recurrent, x: Tensor, il: int) -> Tensor:
    """X (E, T*N) to (E, T*N): one product gives z, x, B, C and dt; heads of x share B and C in groups."""
    h, n_seqs, n_tokens = b.h, rs.n_seqs, rs.n_seq_tokens
    d_inner, d_state, n_group = h.ssm_d_inner, h.ssm_d_state, h.ssm_n_group
    n_head = b.keys.integer("ssm.time_step_rank")
    d = d_inner // n_head
    n_channels = d_inner + 2 * n_group * d_state

    by_sequence = "mamba2_projects_by_sequence" in b.context.rules
    both = b.linear("ssm_in", il, ops.reshape(x, x.ne[0], n_tokens, n_seqs) if by_sequence else x)
    both = both if by_sequence else ops.reshape(both, both.ne[0], n_tokens, n_seqs)
    size, per_token, per_seq, _ = both.nb
    z = ops.strided(both, (d, n_head, n_tokens, n_seqs), (d * size, per_token, per_seq))
    xbc = ops.strided(both, (n_channels, n_tokens, n_seqs), (per_token, per_seq), d_inner * size)
    dt = ops.strided(both, (n_head, n_tokens, n_seqs), (per_token, per_seq), (d_inner + n_channels) * size)

    xbc = _convolved(b, rs.conv_input(xbc, il), il)  # (C, T, N)
    size, per_token, per_seq, _ = xbc.nb
    x = ops.strided(xbc, (d, n_head, n_tokens, n_seqs), (d * size, per_token, per_seq))
    group = (d_state, n_group, n_tokens, n_seqs), (d_state * size, per_token, per_seq)
    in_b = ops.strided(xbc, *group, d_inner * size)
    out_c = ops.strided(xbc, *group, (d_inner + n_group * d_state) * size)
    dt = ops.add(ops.cont(dt), b.weight("ssm_dt.bias", il))

    def scan(states: Tensor, ids: Tensor) -> Tensor:
        states = ops.reshape(states, d_state, d, n_head, states.ne[1])
        return ssm_scan(states, x, dt, b.weight("ssm_a", il), in_b, out_c, ids, 1 + b.context.n_rs_seq)

    result = rs.read(rs.rows("s", il), scan)
    rs.store_states(result, d_inner * n_tokens * n_seqs * size, il)
    strides = (x.nb[1], n_head * x.nb[1], n_tokens * n_head * x.nb[1])
    y = ops.strided(result, (d, n_head, n_tokens, n_seqs), strides)
    y = ops.add(y, ops.mul(x, b.weight("ssm_d", il)))
    y = ops.glu(ops.cont(z), y)
    gain = b.weight_or_none("ssm_norm.weight", il)
    if gain is not None:  # a norm for each group
        y = b.norm_rms(ops.reshape(y, d_inner // n_group, n_group, n_tokens, n_seqs), gain)
    if by_sequence:
        y = b.linear("ssm_out", il, ops.reshape(y, d_inner, n_tokens, n_seqs))
        return ops.reshape(y, y.ne[0], n_tokens * n_seqs)
    return b.linear("ssm_out", il, ops.reshape(y, d_inner, n_tokens * n_seqs))


def mamba(b: Builder, rs: Recurrent, x: Tensor, il: int) -> Tensor:
    """X (E, T*N) to (E, T*N): every channel is a head of its own, and dt, B and C come of the convolved channels."""
    h, n_seqs, n_tokens = b.h, rs.n_seqs, rs.n_seq_tokens
    d_inner, d_state, dt_rank = h.ssm_d_inner, h.ssm_d_state, b.keys.integer("ssm.time_step_rank")

    both = b.linear("ssm_in", il, ops.reshape(x, x.ne[0], n_tokens, n_seqs))
    size, per_token, per_seq, _ = both.nb
    x = ops.strided(both, (d_inner, n_tokens, n_seqs), (per_token, per_seq))
    z = ops.strided(both, (d_inner, n_tokens, n_seqs), (per_token, per_seq), d_inner * size)
    x = _convolved(b, rs.conv_input(x, il), il)

    both = b.linear("ssm_x", il, x)
    size, per_token, per_seq, _ = both.nb
    dt = ops.strided(both, (dt_rank, n_tokens, n_seqs), (per_token, per_seq))
    shape = (d_state, 1, n_tokens, n_seqs), (d_state * size, per_token, per_seq)
    in_b = ops.strided(both, *shape, dt_rank * size)
    out_c = ops.strided(both, *shape, (dt_rank + d_state) * size)
    gains = [b.weight_or_none(f"ssm_{part}_norm.weight", il) for part in ("dt", "b", "c")]
    if b.keys.flag("ssm.dt_b_c_rms", False) or None not in gains:
        dt, in_b, out_c = (b.norm_rms(part, gain) for part, gain in zip((dt, in_b, out_c), gains, strict=True))
    else:
        dt = ops.cont(dt)
    dt = b.linear("ssm_dt", il, dt)
    heads = ops.reshape(x, 1, d_inner, n_tokens, n_seqs)

    def scan(states: Tensor, ids: Tensor) -> Tensor:
        states = ops.reshape(states, d_state, 1, d_inner, states.ne[1])
        return ssm_scan(states, heads, dt, b.weight("ssm_a", il), in_b, out_c, ids)

    result = rs.read(rs.rows("s", il), scan)
    rs.store_states(result, heads.nb[3] * n_seqs, il)
    y = ops.strided(result, (d_inner, n_tokens, n_seqs), (heads.nb[2], heads.nb[3]))
    y = ops.add(y, ops.mul(x, b.weight("ssm_d", il)))
    y = b.linear("ssm_out", il, ops.glu(ops.cont(z), y))
    return ops.reshape(y, y.ne[0], n_tokens * n_seqs)


def _convolved(b: Builder, x: Tensor, il: int) -> Tensor:
    x = ssm_conv(x, b.weight("ssm_conv1d.weight", il))
    return ops.unary(ops.add(x, b.weight("ssm_conv1d.bias", il)), "silu")
