"""ggml's operations on sequences: convolutions and scans, which take each token after the one before it.

Scans give their results and, behind them, the states that they leave: one tensor, shown in parts by views.

Functions are named as in ggml.h. Legend: N n_seqs, T tokens of a sequence, H heads.
Source: llama.cpp 0c1e570 ggml/src/ggml.c.
"""

from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32


def ssm_conv(x: Tensor, kernel: Tensor) -> Tensor:
    """Each channel of `x` (d_conv - 1 + T, channels, N) convolved with its row of `kernel`: (channels, T, N)."""
    return Tensor("SSM_CONV", F32, (x.ne[1], x.ne[0] - kernel.ne[0] + 1, x.ne[2]), (x, kernel))


def ssm_scan(
    states: Tensor, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, ids: Tensor, n_snapshots: int = 1
) -> Tensor:
    """`h <- h * exp(dt' a) + dt' x b` and `y = h c`, where `dt' = softplus(dt)`, token by token.

    `states` (d_state, d, H, ...), `ids` (N,) says which of them belong to the sequences; `x` (d, H, T, N), `dt`
    (H, T, N), `a` (1, H) or (d_state, H), `b` and `c` (d_state, n_group, T, N). The result is flat: y as x, then the
    last `n_snapshots` states of each sequence.
    """
    n_x = x.ne[0] * x.ne[1] * x.ne[2] * x.ne[3]
    n_states = n_snapshots * states.ne[0] * states.ne[1] * states.ne[2] * ids.ne[0]
    return Tensor("SSM_SCAN", F32, (n_x + n_states,), (states, x, dt, a, b, c, ids), params=(n_snapshots,))


def gated_delta_net(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, beta: Tensor, state: Tensor, n_snapshots: int
) -> Tensor:
    """`S <- exp(gate) S`, then `S <- S + beta (v - S k) k^T` and `o = S q / sqrt(d)`, token by token.

    `q`, `k`, `v` (d, H, T, N), `gate` (1 or d, H, T, N), `beta` (1, H, T, N), `state` (d, d, H, N); the result is
    (d*H, T*N + n_snapshots*d*N): o, then the last states.
    """
    d, n_head, n_tokens, n_seqs = v.ne
    ne = (d * n_head, n_tokens * n_seqs + n_snapshots * d * n_seqs)
    return Tensor("GATED_DELTA_NET", F32, ne, (q, k, v, gate, beta, state), params=(n_snapshots,))


def rwkv_wkv6(k: Tensor, v: Tensor, r: Tensor, first: Tensor, decay: Tensor, state: Tensor) -> Tensor:
    """RWKV 6, tokens (d, H, T*N) and `state` (d*d*H, N): (d*H, T*N + d*N), results and then states."""
    return Tensor("RWKV_WKV6", F32, _wkv(k, state), (k, v, r, first, decay, state))


def rwkv_wkv7(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """RWKV 7, shapes as RWKV 6."""
    return Tensor("RWKV_WKV7", F32, _wkv(k, state), (r, w, k, v, a, b, state))


def gated_linear_attn(k: Tensor, v: Tensor, q: Tensor, gate: Tensor, state: Tensor, factor: float) -> Tensor:
    """Linear attention whose state decays by `gate`, shapes as RWKV 6."""
    return Tensor("GATED_LINEAR_ATTN", F32, _wkv(k, state), (k, v, q, gate, state), params=(factor,))


def _wkv(k: Tensor, state: Tensor) -> tuple[int, int]:
    d, n_head, n_tokens, _ = k.ne
    return d * n_head, n_tokens + d * state.ne[1]
