"""Operations that take each token after the one before it: short convolutions, state space scans, delta nets.

Legend: N sequences, T tokens of each, H heads, D head size, P state size.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_ssm_conv_f32,
ggml_compute_forward_ssm_scan_f32, ggml_compute_forward_gated_delta_net_one_chunk.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from refengine.blocks import F32
from refengine.ops.elementwise import softplus
from refengine.ops.step import Operation, Run, Step

AnyFloat = npt.NDArray[np.floating[Any]]


def ssm_conv(step: Step) -> Run:
    """Each channel `(N, C, d_conv - 1 + T)` convolved with its row of `(C, d_conv)`: `(N, T, C)`."""
    x, out = step.src[0][0], step.out[0]
    kernel = step.reader(1)()[0, 0]
    windows = sliding_window_view(x, kernel.shape[1], axis=2)  # (N, C, T, d_conv)

    def run() -> None:
        np.einsum("nctk,ck->ntc", windows, kernel, out=out)

    return run


def results_and_states(step: Step, results: tuple[int, ...], state: tuple[int, ...]) -> tuple[F32, F32]:
    """The output in two: the tokens' results `(N, T, ...)`, and behind them states `(K, N, *state)`.

    `keep` puts the states behind the last K tokens there, the newest first.
    """
    flat, n_results = step.out.reshape(-1), prod(results)
    return flat[:n_results].reshape(results), flat[n_results:].reshape(-1, results[0], *state)


def keep(left: F32, state: AnyFloat, n_later: int) -> None:
    """Put a state behind which `n_later` tokens follow among those that are left, if it is late enough."""
    if n_later < len(left):
        left[n_later] = state


def ssm_scan(step: Step) -> Run:
    """`h <- h exp(dt' a) + x dt' b`, `y = h c` with `dt' = softplus(dt)`, token by token."""
    states, x, dt, a, b, c = (step.reader(i)() for i in range(6))
    ids = step.src[6][0, 0, 0]
    _, n_tokens, n_head, _ = x.shape
    y, left = results_and_states(step, x.shape, states.shape[1:])
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
            keep(left, h, n_tokens - 1 - t)

    return run


def gated_delta_net(step: Step) -> Run:
    """`S <- exp(gate) S`, `S <- S + beta (v - S k) k^T`, `o = S q / sqrt(D)`, token by token."""
    q, k, v, gate, beta, state = step.src
    n_seqs, n_tokens, n_head, d = v.shape
    out, left = results_and_states(step, v.shape, (n_head, d, d))
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
            keep(left, s, n_tokens - 1 - t)

    return run


# -- RWKV, and linear attention with gates: `step(S, t)` gives the next state and the result of one token


def _scan(step: Step, one: Callable[[F32, int], tuple[F32, F32]], n_sources: int) -> Run:
    """The results `(N, T, H, D)` of all tokens, and the last states `(N, H, D, D)` behind them."""
    state = step.src[n_sources]
    _, n_tokens, n_head, d = step.src[0].shape  # of all sequences
    n_seqs = state.size // (n_head * d * d)
    out, left = results_and_states(step, (n_seqs, n_tokens // n_seqs, n_head, d), (n_head, d, d))

    def run() -> None:
        s: F32 = state.reshape(n_seqs, n_head, d, d)
        for t in range(n_tokens // n_seqs):
            s, out[:, t] = one(s, t)
        left[...] = s

    return run


def _tokens(step: Step, n: int) -> list[F32]:
    """The first `n` sources as `(N, T, H, D)`."""
    _, n_tokens, n_head, d = step.src[0].shape
    n_seqs = step.src[-1].size // (n_head * d * d)
    return [step.reader(i)().reshape(n_seqs, n_tokens // n_seqs, n_head, d) for i in range(n)]


def rwkv_wkv6(step: Step) -> Run:
    """`o = r (S + first k v)`, then `S <- decay S + k v`; S has a row for each element of k."""
    k, v, r = _tokens(step, 3)
    first, decay = step.reader(3)().reshape(k.shape[2:]), step.reader(4)().reshape(k.shape)

    def one(s: F32, t: int) -> tuple[F32, F32]:
        kv = k[:, t, :, :, np.newaxis] * v[:, t, :, np.newaxis]
        result = np.einsum("nhij,nhi->nhj", s + first[..., np.newaxis] * kv, r[:, t])
        return s * decay[:, t, :, :, np.newaxis] + kv, result

    return _scan(step, one, 5)


def rwkv_wkv7(step: Step) -> Run:
    """`S <- w S + v k + (S a) b`, `o = S r`; S has a row for each element of v."""
    r, w, k, v, a, b = _tokens(step, 6)

    def one(s: F32, t: int) -> tuple[F32, F32]:
        removed = np.einsum("nhij,nhj->nhi", s, a[:, t])[..., np.newaxis] * b[:, t, :, np.newaxis]
        s = s * w[:, t, :, np.newaxis] + v[:, t, :, :, np.newaxis] * k[:, t, :, np.newaxis] + removed
        return s, np.einsum("nhij,nhj->nhi", s, r[:, t])

    return _scan(step, one, 6)


def gated_linear_attn(step: Step) -> Run:
    """`S <- gate S + k v`, `o = factor q S`; S has a row for each element of k."""
    k, v, q, gate = _tokens(step, 4)
    factor = np.float32(cast(float, step.node.params[0]))

    def one(s: F32, t: int) -> tuple[F32, F32]:
        s = s * gate[:, t, :, :, np.newaxis] + k[:, t, :, :, np.newaxis] * v[:, t, :, np.newaxis]
        return s, np.einsum("nhij,nhi->nhj", s, factor * q[:, t])

    return _scan(step, one, 4)


OPERATIONS: Final[Mapping[str, Operation]] = {
    "SSM_CONV": ssm_conv,
    "SSM_SCAN": ssm_scan,
    "GATED_DELTA_NET": gated_delta_net,
    "RWKV_WKV6": rwkv_wkv6,
    "RWKV_WKV7": rwkv_wkv7,
    "GATED_LINEAR_ATTN": gated_linear_attn,
}
