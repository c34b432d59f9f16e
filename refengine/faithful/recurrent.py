"""Short convolutions, state space scans and delta nets to the bit.

Legend as in `refengine.ops.recurrent`: N sequences, T tokens of each, H heads, D head size, P state size.
Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_ssm_conv_f32,
ggml_compute_forward_ssm_scan_f32, ggml_compute_forward_gated_delta_net_one_chunk, as GCC compiles them.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from refengine.blocks import F32
from refengine.faithful.arithmetic import F64, as_f64, fma
from refengine.faithful.functions import c_exp
from refengine.faithful.lanes import floats_behind, fused_behind, lane_dot
from refengine.faithful.rows import softplus
from refengine.ops.recurrent import keep, results_and_states
from refengine.ops.step import Run, Step
from refengine.peers.simd import REGISTERS


def ssm_conv(step: Step) -> Run:
    """Each channel `(N, C, d_conv - 1 + T)` convolved with its row of `(C, d_conv)`: `(N, T, C)`."""
    x, out = step.src[0][0], step.out[0]
    kernel = step.reader(1)()[0, 0]
    windows = sliding_window_view(x, kernel.shape[1], axis=2).swapaxes(1, 2)  # (N, T, C, d_conv)

    def run() -> None:
        total = np.zeros(out.shape)
        out[...] = floats_behind(total, windows.astype(np.float64), kernel.astype(np.float64))

    return run


def ssm_scan(step: Step) -> Run:
    """`h <- h exp(dt' a) + x dt' b`, `y = h c` with `dt' = softplus(dt)`, token by token."""
    simd = step.numerics.simd
    assert simd is not None
    states, x, dt, a, b, c = (step.reader(i)() for i in range(6))
    ids = step.src[6][0, 0, 0]
    _, n_tokens, n_head, _ = x.shape
    y, left = results_and_states(step, x.shape, states.shape[1:])
    decay = a[0, 0]  # (H, P or 1)
    n_shared = n_head // b.shape[2]  # heads that share b and c
    n_lanes = REGISTERS * simd.lanes

    def dot(h: F64, weights: F64) -> F64 | F32:
        if decay.shape[1] == 1:
            return lane_dot(h, weights, n_lanes, simd, fused_behind)
        return fused_behind(np.zeros(h.shape[:-1]), h, weights)  # where each state has a factor of its own

    def run() -> None:
        h = states[ids].astype(np.float64)  # (N, H, D, P)
        steps = softplus(dt[0])  # (N, T, H)
        in_b, out_c = (np.repeat(part, n_shared, axis=2).astype(np.float64) for part in (b, c))  # (N, T, H, P)
        for t in range(n_tokens):
            now = steps[:, t, :, np.newaxis]
            scaled = (x[:, t] * now)[..., np.newaxis].astype(np.float64)  # (N, H, D, 1)
            shrink = c_exp(now * decay)[:, :, np.newaxis].astype(np.float64)
            h = fma(h, shrink, as_f64(in_b[:, t, :, np.newaxis] * scaled))
            y[:, t] = dot(h, out_c[:, t, :, np.newaxis])
            keep(left, h, n_tokens - 1 - t)

    return run


def gated_delta_net(step: Step) -> Run:
    """`S <- exp(gate) S`, `S <- S + beta (v - S k) k^T`, `o = S q / sqrt(D)`, token by token."""
    simd = step.numerics.simd
    assert simd is not None
    q, k, v, gate, beta, state = step.src
    n_seqs, n_tokens, n_head, d = v.shape
    out, left = results_and_states(step, v.shape, (n_head, d, d))
    q_heads, k_heads = (np.arange(n_head) % part.shape[2] for part in (q, k))
    scale = np.float32(1) / np.sqrt(np.float32(d))
    n_lanes = REGISTERS * simd.lanes

    def run() -> None:
        s = state.reshape(n_seqs, n_head, d, d).astype(np.float64)  # rows are S's columns
        for t in range(n_tokens):
            key = k[:, t, k_heads].astype(np.float64)[:, :, np.newaxis]
            query = q[:, t, q_heads].astype(np.float64)[:, :, np.newaxis]
            s = as_f64(s * c_exp(gate[:, t])[:, :, np.newaxis])
            delta = (v[:, t] - lane_dot(s, key, n_lanes, simd, floats_behind)) * beta[:, t]
            s = fma(key, delta[..., np.newaxis].astype(np.float64), s)
            out[:, t] = lane_dot(s, query, n_lanes, simd, floats_behind) * scale
            keep(left, s, n_tokens - 1 - t)

    return run
