"""Operations that take each token after the one before it: short convolutions, state space scans, delta nets.

Legend: N sequences, T tokens of each, H heads, D head size, P state size. Results that carry states behind them are
flat: `(N, T, H, D)`, then the states.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_ssm_conv_f32,
ggml_compute_forward_ssm_scan_f32, ggml_compute_forward_gated_delta_net_one_chunk.
"""

from collections.abc import Mapping
from typing import Final, cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from refengine.blocks import F32
from refengine.ops.elementwise import softplus
from refengine.ops.step import Operation, Run, Step


def ssm_conv(step: Step) -> Run:
    """Each channel `(N, C, d_conv - 1 + T)` convolved with its row of `(C, d_conv)`: `(N, T, C)`."""
    x, out = step.src[0][0], step.out[0]
    kernel = step.reader(1)()[0, 0]
    windows = sliding_window_view(x, kernel.shape[1], axis=2)  # (N, C, T, d_conv)

    def run() -> None:
        np.einsum("nctk,ck->ntc", windows, kernel, out=out)

    return run


def ssm_scan(step: Step) -> Run:
    """`h <- h exp(dt' a) + x dt' b`, `y = h c` with `dt' = softplus(dt)`, token by token."""
    states, x, dt, a, b, c = (step.reader(i)() for i in range(6))
    ids, flat = step.src[6][0, 0, 0], step.out.reshape(-1)
    n_snapshots = cast(int, step.node.params[0])
    n_seqs, n_tokens, n_head, _ = x.shape
    y, left = flat[: x.size].reshape(x.shape), flat[x.size :].reshape(n_snapshots, n_seqs, *states.shape[1:])
    decay = a[0, 0]  # (H, P or 1)
    n_shared = n_head // b.shape[2]  # heads that share b and c

    def run() -> None:
        h = states[ids]  # (N, H, D, P)
        steps = softplus(dt[0])  # (N, T, H)
        in_b, out_c = (np.repeat(part, n_shared, axis=2) for part in (b, c))  # (N, T, H, P)
        for t in range(n_tokens):
            now = steps[:, t, :, np.newaxis]
            scaled = (x[:, t] * now)[..., np.newaxis]  # (N, H, D, 1)
            h = h * np.exp(now * decay)[:, :, np.newaxis] + scaled * in_b[:, t, :, np.newaxis]
            y[:, t] = np.einsum("nhdp,nhp->nhd", h, out_c[:, t])
            if n_tokens - 1 - t < n_snapshots:
                left[n_tokens - 1 - t] = h

    return run


def gated_delta_net(step: Step) -> Run:
    """`S <- exp(gate) S`, `S <- S + beta (v - S k) k^T`, `o = S q / sqrt(D)`, token by token."""
    q, k, v, gate, beta, state = step.src
    flat = step.out.reshape(-1)
    n_snapshots = cast(int, step.node.params[0])
    n_seqs, n_tokens, n_head, d = v.shape
    out = flat[: v.size].reshape(v.shape)
    left = flat[v.size :].reshape(n_snapshots, n_seqs, n_head, d, d)
    q_heads, k_heads = (np.arange(n_head) % part.shape[2] for part in (q, k))
    scale = np.float32(1 / np.sqrt(np.float32(d)))

    def run() -> None:
        s: F32 = state.reshape(n_seqs, n_head, d, d)  # rows are S's columns
        for t in range(n_tokens):
            key, query = k[:, t, k_heads], q[:, t, q_heads]
            s = s * np.exp(gate[:, t])[:, :, np.newaxis]
            delta = (v[:, t] - np.einsum("nhji,nhi->nhj", s, key)) * beta[:, t]
            s = s + delta[..., np.newaxis] * key[:, :, np.newaxis]
            out[:, t] = np.einsum("nhji,nhi->nhj", s, query) * scale
            if n_tokens - 1 - t < n_snapshots:
                left[n_tokens - 1 - t] = s

    return run


OPERATIONS: Final[Mapping[str, Operation]] = {
    "SSM_CONV": ssm_conv,
    "SSM_SCAN": ssm_scan,
    "GATED_DELTA_NET": gated_delta_net,
}
