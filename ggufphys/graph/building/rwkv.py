"""RWKV: each token is mixed with the one before it, and a state takes the place of attention.

Legend: E n_embd, D wkv_head_size, H heads, T tokens of a sequence, N n_seqs.
Source: llama.cpp 0c1e570 src/models/rwkv6-base.cpp, rwkv7-base.cpp; src/llama-graph.cpp, build_rwkv_token_shift_load.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import Unary
from ggufphys.graph.ssm_ops import gated_linear_attn, rwkv_wkv6, rwkv_wkv7

GROUP_EPS = 64e-5  # of the norm over heads
DECAY = -0.606531  # -exp(-0.5)
L2_EPS = 1e-12


# -- the token before


def read_shifts(b: Builder, rs: Recurrent, il: int) -> Tensor:
    """What each sequence's last token was in this layer (E, token_shift_count, N)."""
    return ops.reshape(rs.read(rs.rows("r", il)), b.h.n_embd, b.h.token_shift_count, rs.n_seqs)


def store_shifts(b: Builder, rs: Recurrent, shifts: Tensor, il: int) -> None:
    """Keep it for the next batch."""
    n = b.h.n_embd * rs.n_seqs * b.h.token_shift_count
    rows = rs.rows("r", il)
    b.graph.expand(ops.cpy(ops.view(shifts, (n,)), ops.view(rows, (n,), offset=rs.offset(rows))))


def before(x: Tensor, shift: Tensor) -> Tensor:
    """For each token of X (E, T, N) the one before it, `shift` (E, 1, N) for the first."""
    return ops.concat(shift, ops.strided(x, (x.ne[0], x.ne[1] - 1, x.ne[2]), x.nb[1:3]), 1)


def last(x: Tensor) -> Tensor:
    """The last token of each sequence (E, 1, N)."""
    return ops.strided(x, (x.ne[0], 1, x.ne[2]), x.nb[1:3], (x.ne[1] - 1) * x.ne[0] * x.nb[0])


def lerp(b: Builder, x: Tensor, difference: Tensor, name: str, il: int) -> Tensor:
    """X on its way to the token before, as far as the weight says."""
    return ops.add(ops.mul(difference, b.weight(f"{name}.weight", il)), x)


# -- time mixing


def time_mix_6(b: Builder, rs: Recurrent, x: Tensor, x_prev: Tensor, il: int) -> Tensor:
    """X and the tokens before (E, T, N) to (E, T, N). Without `time_mix_first` it is gated linear attention."""
    h, n_tokens = b.h, b.batch.n_tokens
    n_embd, d = h.n_embd, h.wkv_head_size
    n_head, n_head_kv = n_embd // d, h.n_head_kv[il]
    first = b.weight_or_none("time_mix_first.weight", il)
    sx = ops.reshape(ops.sub(x_prev, x), n_embd, n_tokens)
    x = ops.reshape(x, n_embd, n_tokens)
    xw, xk, xv, xr, xg = _mixtures_6(b, x, sx, il)

    r, k, v = (b.linear(f"time_mix_{name}", il, y) for name, y in (("receptance", xr), ("key", xk), ("value", xv)))
    g = ops.unary(b.linear("time_mix_gate", il, xg), "sigmoid" if first is None else "silu")
    if n_head_kv not in (0, n_head):
        k, v = (ops.reshape(y, d, 1, n_head_kv, n_tokens) for y in (k, v))
        k, v = (ops.repeat(y, d, n_head // n_head_kv, n_head_kv, n_tokens) for y in (k, v))
    k, v, r = (ops.reshape(y, d, n_head, n_tokens) for y in (k, v, r))

    w = ops.unary(ops.mul_mat(b.weight("time_mix_decay_w1.weight", il), xw), "tanh")
    w = ops.add(ops.mul_mat(b.weight("time_mix_decay_w2.weight", il), w), b.weight("time_mix_decay.weight", il))
    w = ops.reshape(ops.unary(ops.unary(ops.unary(w, "exp"), "neg"), "exp"), d, n_head, n_tokens)
    if first is None:
        k = ops.sub(k, ops.mul(k, w))
    state = rs.read(rs.rows("s", il))
    result = gated_linear_attn(k, v, r, w, state, d ** (-0.5)) if first is None else rwkv_wkv6(k, v, r, first, w, state)
    x = _taken(b, rs, result, il)
    x = ops.reshape(x, n_embd, n_tokens) if first is None else _group_norm(b, x, n_head, il)
    x = b.linear("time_mix_output", il, ops.mul(x, g))
    return ops.reshape(x, n_embd, rs.n_seq_tokens, rs.n_seqs)


def _mixtures_6(b: Builder, x: Tensor, sx: Tensor, il: int) -> list[Tensor]:
    """Five mixtures (E, T*N) of X with the tokens before; how far each goes depends on the token."""
    n_embd, n_tokens = x.ne[:2]
    w1, w2 = b.weight("time_mix_w1.weight", il), b.weight("time_mix_w2.weight", il)
    xxx = ops.unary(ops.mul_mat(w1, lerp(b, x, sx, "time_mix_lerp_x", il)), "tanh")
    xxx = ops.reshape(xxx, w1.ne[1] // 5, 1, 5, n_tokens)
    xxx = ops.cont(ops.permute(xxx, 0, 1, 3, 2))
    xxx = ops.mul_mat(ops.reshape(w2, w2.ne[0], w2.ne[1], 1, 5), xxx)
    fused = b.weight_or_none("time_mix_lerp_fused.weight", il)
    if fused is not None:
        sx, x = ops.reshape(sx, n_embd, 1, n_tokens), ops.reshape(x, n_embd, 1, n_tokens)
        return _slices(ops.add(ops.mul(ops.add(xxx, fused), sx), x), n_tokens, 5)
    ways = [b.weight(f"time_mix_lerp_{name}.weight", il) for name in "wkvrg"]
    slices = zip(_slices(xxx, n_tokens, 5), ways, strict=True)
    return [ops.add(ops.mul(ops.add(part, way), sx), x) for part, way in slices]


def time_mix_7(
    b: Builder, rs: Recurrent, x: Tensor, x_prev: Tensor, first_value: Tensor | None, il: int
) -> tuple[Tensor, Tensor]:
    """RWKV 7's time mixing, and the first layer's values, which all others mix into theirs."""
    n_embd, d, n_tokens = b.h.n_embd, b.h.wkv_head_size, b.batch.n_tokens
    n_head = n_embd // d

    def low_rank(name: str, y: Tensor, kind: Unary | None) -> Tensor:
        y = ops.mul_mat(b.weight(f"time_mix_{name}1.weight", il), y)
        return ops.mul_mat(b.weight(f"time_mix_{name}2.weight", il), y if kind is None else ops.unary(y, kind))

    is_gated = b.weight_or_none("time_mix_g1.weight", il) is not None
    n = 6 if is_gated else 5
    sx = ops.repeat(ops.sub(x_prev, x), n_embd, rs.n_seq_tokens, rs.n_seqs, n)
    xr, xw, xk, xv, xa, *xg = _slices(lerp(b, x, sx, "time_mix_lerp_fused", il), n_tokens, n)

    r = b.linear("time_mix_receptance", il, xr)
    w = ops.add(low_rank("w", xw, "tanh"), b.weight("time_mix_w0.weight", il))
    w = ops.unary(ops.scale(ops.unary(w, "sigmoid"), DECAY), "exp")
    k, v = b.linear("time_mix_key", il, xk), b.linear("time_mix_value", il, xv)
    if first_value is None:
        first_value = v
    else:
        way = ops.unary(ops.add(low_rank("v", xv, None), b.weight("time_mix_v0.weight", il)), "sigmoid")
        v = ops.add(v, ops.mul(ops.sub(first_value, v), way))
    a = ops.unary(ops.add(low_rank("a", xa, None), b.weight("time_mix_a0.weight", il)), "sigmoid")
    kk = ops.reshape(ops.mul(k, b.weight("time_mix_k_k.weight", il)), d, n_head, n_tokens)
    kk = ops.l2_norm(kk, L2_EPS)
    ka = ops.mul(k, b.weight("time_mix_k_a.weight", il))
    k = ops.add(k, ops.sub(ops.mul(a, ka), ka))
    r, w, k, v, a = (ops.reshape(y, d, n_head, n_tokens) for y in (r, w, k, v, a))

    state = rs.read(rs.rows("s", il))
    x = _taken(b, rs, rwkv_wkv7(r, w, k, v, ops.unary(kk, "neg"), ops.mul(kk, a), state), il)
    has_norm = all(b.weight_or_none(f"time_mix_ln.{part}", il) is not None for part in ("weight", "bias"))
    x = _group_norm(b, x, n_head, il) if has_norm else ops.reshape(x, n_embd, n_tokens)
    bonus = ops.reshape(b.weight("time_mix_r_k.weight", il), d, n_head)
    bonus = ops.sum_rows(ops.mul(ops.mul(k, r), bonus))
    x = ops.add(x, ops.reshape(ops.mul(v, bonus), n_embd, n_tokens))
    if is_gated:
        x = ops.mul(x, low_rank("g", xg[0], "sigmoid"))
    x = b.linear("time_mix_output", il, x)
    return ops.reshape(x, n_embd, rs.n_seq_tokens, rs.n_seqs), first_value


def _slices(x: Tensor, n_tokens: int, n: int) -> list[Tensor]:
    """Each a mixture (E, T*N), one behind the other."""
    n_embd = x.ne[0]
    return [ops.strided(x, (n_embd, n_tokens), (x.nb[1],), i * n_embd * n_tokens * x.nb[0]) for i in range(n)]


def _taken(b: Builder, rs: Recurrent, result: Tensor, il: int) -> Tensor:
    """What a layer's recurrence gave, flat, its states stored."""
    n = b.h.n_embd * b.batch.n_tokens
    x = ops.view(result, (n,))
    rs.store_states(result, n * result.nb[0], il)
    return x


def _group_norm(b: Builder, x: Tensor, n_head: int, il: int) -> Tensor:
    n_embd, n_tokens = b.h.n_embd, b.batch.n_tokens
    x = ops.norm(ops.reshape(x, n_embd // n_head, n_head, n_tokens), GROUP_EPS)
    x = ops.mul(ops.reshape(x, n_embd, n_tokens), b.weight("time_mix_ln.weight", il))
    return ops.add(x, b.weight("time_mix_ln.bias", il))
