"""ggml's operations: what shape, type and strides does each result have, and which numbers does the operation take?

Functions are named as in ggml.h. Source: llama.cpp 0c1e570 ggml/src/ggml.c.
"""

from math import exp, inf, log
from typing import TYPE_CHECKING, Literal

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.graph.ir import Shape, Tensor

if TYPE_CHECKING:
    from ggufphys.graph.rope import Rope

IN_F32 = "in_f32"  # of a product: its second operand may be too large for F16 (ggml_prec_set_src)

F32, F16, I32, I64 = GGMLType.F32, GGMLType.F16, GGMLType.I32, GGMLType.I64

Unary = Literal[
    "abs", "sgn", "neg", "step", "tanh", "elu", "relu", "sigmoid", "gelu", "gelu_quick", "silu", "hardswish",
    "hardsigmoid", "exp", "expm1", "softplus", "gelu_erf", "xielu", "floor", "ceil", "round", "trunc",
]  # fmt: skip
Glu = Literal["reglu", "geglu", "swiglu", "swiglu_oai", "geglu_erf", "geglu_quick", "swiglu_clamp"]

# -- leafs


def as_known(ggml_type: GGMLType | int) -> GGMLType:
    """The type of a weight in a graph: F32 stands for one that the pinned ggml does not know."""
    return ggml_type if isinstance(ggml_type, GGMLType) else F32


def weight(ggml_type: GGMLType, *ne: int, name: str = "", params: tuple[object, ...] = ()) -> Tensor:
    """A tensor whose bytes lie in a weight or cache buffer; a cache's params are its part ("k", "v", ...) and layer."""
    return Tensor("NONE", ggml_type, ne, external=True, name=name, params=params)


def new_input(ggml_type: GGMLType, *ne: int, name: str = "", params: tuple[object, ...] = ()) -> Tensor:
    """A tensor that the caller fills before each run: `name` says with what, `params` for which cache."""
    return Tensor("NONE", ggml_type, ne, is_input=True, name=name, params=params)


def arange(start: int, stop: int) -> Tensor:
    """The numbers from `start` up to `stop`, F32: computed when the graph runs, though from nothing."""
    return Tensor("ARANGE", F32, (stop - start,), params=(start, stop, 1))


# -- products and rows


def mul_mat(w: Tensor, x: Tensor) -> Tensor:
    """`x` (n_in, n_tokens) times `w` (n_in, n_out): (n_out, n_tokens), F32; w's outer axes are repeated over x's."""
    return Tensor("MUL_MAT", F32, (w.ne[1], x.ne[1], x.ne[2], x.ne[3]), (w, x))


def mul_mat_id(experts: Tensor, x: Tensor, ids: Tensor) -> Tensor:
    """Each token times the experts it chose: (n_out, n_expert_used, n_tokens), F32."""
    return Tensor("MUL_MAT_ID", F32, (experts.ne[1], ids.ne[0], x.ne[2]), (experts, x, ids))


def get_rows(table: Tensor, rows: Tensor) -> Tensor:
    """The rows of `table` that `rows` names, as F32 (numbers stay I32)."""
    ggml_type = I32 if table.type is I32 else F32
    return Tensor("GET_ROWS", ggml_type, (table.ne[0], rows.ne[0], rows.ne[1], rows.ne[2]), (table, rows))


def set_rows(destination: Tensor, values: Tensor, rows: Tensor) -> Tensor:
    """Write `values` into rows of `destination`: a view of it."""
    return Tensor(
        "SET_ROWS",
        destination.type,
        destination.ne,
        (values, rows, destination),
        nb=destination.nb,
        view_of=destination,
    )


# -- element by element


def elementwise(op: str, a: Tensor, *more: Tensor, params: tuple[object, ...] = ()) -> Tensor:
    """An operation whose result has the layout of its first operand, dense: ADD, MUL, RMS_NORM, ROPE, SOFT_MAX, ..."""
    return Tensor(op, a.type, a.ne, (a, *more), params=params)


def add(a: Tensor, b: Tensor) -> Tensor:
    """A + b; b is repeated over a."""
    return Tensor("ADD", a.type, a.ne, (a, b))


def add_inplace(a: Tensor, b: Tensor) -> Tensor:
    """A + b, written over a: a view of it."""
    return Tensor("ADD", a.type, a.ne, (a, b), nb=a.nb, view_of=a)


def add_id(a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
    """`a` (n, n_expert_used, n_tokens) plus the row of `b` (n, n_expert) of each chosen expert."""
    return Tensor("ADD_ID", a.type, a.ne, (a, b, ids))


def sub(a: Tensor, b: Tensor) -> Tensor:
    """A - b; b is repeated over a."""
    return Tensor("SUB", a.type, a.ne, (a, b))


def mul(a: Tensor, b: Tensor) -> Tensor:
    """A * b; b is repeated over a."""
    return Tensor("MUL", a.type, a.ne, (a, b))


def div(a: Tensor, b: Tensor) -> Tensor:
    """A / b; b is repeated over a."""
    return Tensor("DIV", a.type, a.ne, (a, b))


def scale(a: Tensor, factor: float, offset: float = 0.0) -> Tensor:
    """Factor * a + offset."""
    return Tensor("SCALE", a.type, a.ne, (a,), params=(factor, offset))


def scale_inplace(a: Tensor, factor: float) -> Tensor:
    """Factor * a, written over a: a view of it."""
    return Tensor("SCALE", a.type, a.ne, (a,), nb=a.nb, view_of=a, params=(factor, 0.0))


def clamp(a: Tensor, low: float, high: float) -> Tensor:
    """a, not below `low` and not above `high`."""
    return Tensor("CLAMP", a.type, a.ne, (a,), params=(low, high))


def sqr(a: Tensor) -> Tensor:
    """A * a."""
    return Tensor("SQR", a.type, a.ne, (a,))


def sqrt(a: Tensor) -> Tensor:
    """The square root of a."""
    return Tensor("SQRT", a.type, a.ne, (a,))


def unary(a: Tensor, kind: Unary) -> Tensor:
    """An activation function of a."""
    return Tensor("UNARY", a.type, a.ne, (a,), params=(kind,))


def xielu(a: Tensor, alpha_n: float, alpha_p: float, beta: float, eps: float) -> Tensor:
    """An activation function of four numbers, kept as ggml keeps them."""
    numbers = (beta + _softplus(alpha_n), _softplus(alpha_p), beta, eps)
    return Tensor("UNARY", a.type, a.ne, (a,), params=("xielu", *numbers))


def _softplus(x: float) -> float:
    return x if x > 20 else log(1 + exp(x))  # ggml_compute_softplus_f32


def glu(gate: Tensor, up: Tensor, kind: Glu = "swiglu", *numbers: float) -> Tensor:
    """A gated activation: act(gate) * up. swiglu_oai takes alpha and a limit, swiglu_clamp a limit."""
    return Tensor("GLU", gate.type, gate.ne, (gate, up), params=(kind, *numbers))


def swiglu(gate: Tensor, up: Tensor, limit: float) -> Tensor:
    """silu(gate) * up, neither above `limit` nor up below its negative; 0 is no limit."""
    if not limit:
        return glu(gate, up)
    return mul(clamp(unary(gate, "silu"), -inf, limit), clamp(up, -limit, limit))


def glu_halves(x: Tensor, kind: Glu) -> Tensor:
    """act(gate) * up, where gate and up are the halves of each row, the gate first."""
    return Tensor("GLU", x.type, (x.ne[0] // 2, *x.ne[1:]), (x,), params=(kind,))


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """X / sqrt(mean(x^2) + eps), row by row."""
    return Tensor("RMS_NORM", x.type, x.ne, (x,), params=(eps,))


def norm(x: Tensor, eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps), row by row."""
    return Tensor("NORM", x.type, x.ne, (x,), params=(eps,))


def group_norm(x: Tensor, n_groups: int, eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over groups of neighbours along the third axis, each as a whole."""
    return Tensor("GROUP_NORM", x.type, x.ne, (x,), params=(n_groups, eps))


def l2_norm(x: Tensor, eps: float) -> Tensor:
    """X / max(|x|, eps), row by row."""
    return Tensor("L2_NORM", x.type, x.ne, (x,), params=(eps,))


def rope(x: Tensor, pos: Tensor, factors: Tensor | None, settings: "Rope") -> Tensor:
    """Pairs of elements of each head (D, H, T) turned by angles that grow with the position."""
    sources = (x, pos) if factors is None else (x, pos, factors)
    return Tensor("ROPE", x.type, x.ne, sources, params=(settings,))


def rope_back(x: Tensor, pos: Tensor, settings: "Rope") -> Tensor:
    """`rope` the other way: the pairs are turned back."""
    return Tensor("ROPE_BACK", x.type, x.ne, (x, pos), params=(settings,))


def soft_max(
    x: Tensor, mask: Tensor | None = None, factor: float = 1.0, max_bias: float = 0.0, sinks: Tensor | None = None
) -> Tensor:
    """softmax(factor * x + mask), row by row; sinks (n_head,) take part in the sum alone."""
    sources = [x] + [source for source in (mask, sinks) if source is not None]
    return Tensor("SOFT_MAX", x.type, x.ne, tuple(sources), params=(factor, max_bias, sinks is not None))


# -- rows as a whole


def sum_rows(x: Tensor) -> Tensor:
    """The sum of each row: (1, ...)."""
    return Tensor("SUM_ROWS", x.type, (1, *x.ne[1:]), (x,))


def mean(x: Tensor) -> Tensor:
    """The mean of each row: (1, ...)."""
    return Tensor("MEAN", F32, (1, *x.ne[1:]), (x,))


def argsort(x: Tensor) -> Tensor:
    """The numbers of the elements of each row, of the largest first."""
    return Tensor("ARGSORT", I32, x.ne, (x,), params=("desc",))


def argsort_top_k(x: Tensor, k: int) -> Tensor:
    """The numbers of the k largest elements of each row, largest first: a view of all, sorted."""
    order = argsort(x)
    return view(order, (k, *x.ne[1:]), order.nb)


# -- the same bytes, and copies


def view(a: Tensor, ne: tuple[int, ...], nb: Shape | None = None, offset: int = 0) -> Tensor:
    """The same bytes from `offset` on under another shape and other strides."""
    return Tensor("VIEW", a.type, ne, (a,), nb=nb, view_of=a, offset=offset)


def strided(a: Tensor, ne: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Tensor:
    """A view whose rows, matrices, ... begin `strides` bytes apart; those not told are dense (ggml_view_3d, say)."""
    nb = [a.nb[0], *strides]
    for i in range(len(nb), 4):
        nb.append(nb[-1] * ne[i - 1] if i <= len(ne) else nb[-1])
    return view(a, ne, (nb[0], nb[1], nb[2], nb[3]), offset)


def reshape(a: Tensor, *ne: int) -> Tensor:
    """The same dense bytes under another shape."""
    return Tensor("RESHAPE", a.type, ne, (a,), view_of=a)


def permute(a: Tensor, *axes: int) -> Tensor:
    """Axis i of `a` becomes axis axes[i]."""
    ne, nb = [0] * 4, [0] * 4
    for axis, n, stride in zip(axes, a.ne, a.nb, strict=True):
        ne[axis], nb[axis] = n, stride
    return Tensor("PERMUTE", a.type, tuple(ne), (a,), nb=(nb[0], nb[1], nb[2], nb[3]), view_of=a)


def transpose(a: Tensor) -> Tensor:
    """The first two axes exchanged, in strides alone."""
    (n0, n1, n2, n3), (stride0, stride1, stride2, stride3) = a.ne, a.nb
    nb = stride1, stride0, stride2, stride3
    return Tensor("TRANSPOSE", a.type, (n1, n0, n2, n3), (a,), nb=nb, view_of=a)


def cast(a: Tensor, ggml_type: GGMLType) -> Tensor:
    """A dense copy in another type."""
    return Tensor("CPY", ggml_type, a.ne, (a,))


def cpy(a: Tensor, destination: Tensor) -> Tensor:
    """`a` written over `destination`: a view of it."""
    return Tensor("CPY", destination.type, destination.ne, (a, destination), nb=destination.nb, view_of=destination)


def dup(a: Tensor) -> Tensor:
    """A copy."""
    return Tensor("DUP", a.type, a.ne, (a,))


def cont(a: Tensor, *ne: int) -> Tensor:
    """A dense copy."""
    return Tensor("CONT", a.type, ne or a.ne, (a,))


def pad(a: Tensor, *ne: int) -> Tensor:
    """Zeros behind `a` along each axis, up to the shape `ne`."""
    return Tensor("PAD", a.type, ne, (a,))


def pad_before(a: Tensor, *n: int) -> Tensor:
    """So many zeros in front of `a` along each axis."""
    n += (0,) * (4 - len(n))
    return Tensor("PAD", a.type, tuple(size + more for size, more in zip(a.ne, n, strict=True)), (a,), params=n)


def concat(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """One behind the other along an axis."""
    ne = tuple(n + b.ne[i] if i == axis else n for i, n in enumerate(a.ne))
    return Tensor("CONCAT", a.type, ne, (a, b), params=(axis,))


def set_at(a: Tensor, b: Tensor, first: int) -> Tensor:
    """A copy of `a` whose elements from `first` on, in memory, are those of the vector `b`."""
    return Tensor("SET", a.type, a.ne, (a, b), params=(first,))


def repeat(a: Tensor, *ne: int) -> Tensor:
    """The tensor repeated until it fills the shape."""
    return Tensor("REPEAT", a.type, ne, (a,))


def flash_attn_ext(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, factor: float = 1.0, max_bias: float = 0.0,
    softcap: float = 0.0, sinks: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """softmax(factor * QK + mask) V in one operation: (n_embd_head_v, n_head, n_tokens, n_stream), F32."""
    sources = [q, k, v] + [source for source in (mask, sinks) if source is not None]
    ne = (v.ne[0], q.ne[2], q.ne[1], q.ne[3])
    return Tensor("FLASH_ATTN_EXT", F32, ne, tuple(sources), params=(factor, max_bias, softcap, sinks is not None))
