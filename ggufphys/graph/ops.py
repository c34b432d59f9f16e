"""ggml's operations as far as sizes go: what shape, type and strides does each result have?

Functions are named as in ggml.h. Source: llama.cpp 0c1e570 ggml/src/ggml.c.
"""

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.graph.ir import Shape, Tensor

F32, F16, I32, I64 = GGMLType.F32, GGMLType.F16, GGMLType.I32, GGMLType.I64


def as_known(ggml_type: GGMLType | int) -> GGMLType:
    """The type of a weight in a graph: F32 stands for one that the pinned ggml does not know."""
    return ggml_type if isinstance(ggml_type, GGMLType) else F32


def weight(ggml_type: GGMLType, *ne: int, name: str = "") -> Tensor:
    """A tensor whose bytes lie in a weight or cache buffer."""
    return Tensor("NONE", ggml_type, ne, external=True, name=name)


def new_input(ggml_type: GGMLType, *ne: int) -> Tensor:
    """A tensor that the caller fills before each run."""
    return Tensor("NONE", ggml_type, ne, is_input=True)


def mul_mat(w: Tensor, x: Tensor) -> Tensor:
    """`x` (n_in, n_tokens) times `w` (n_in, n_out): (n_out, n_tokens), F32."""
    return Tensor("MUL_MAT", F32, (w.ne[1], x.ne[1], x.ne[2], x.ne[3]), (w, x))


def mul_mat_id(experts: Tensor, x: Tensor, ids: Tensor) -> Tensor:
    """Each token times the experts it chose: (n_out, n_expert_used, n_tokens), F32."""
    return Tensor("MUL_MAT_ID", F32, (experts.ne[1], ids.ne[0], x.ne[2]), (experts, x, ids))


def get_rows(table: Tensor, rows: Tensor) -> Tensor:
    """The rows of `table` that `rows` names, as F32."""
    return Tensor("GET_ROWS", F32, (table.ne[0], rows.ne[0], rows.ne[1], rows.ne[2]), (table, rows))


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


def elementwise(op: str, a: Tensor, *more: Tensor) -> Tensor:
    """An operation whose result has the layout of its first operand, dense: ADD, MUL, RMS_NORM, ROPE, SOFT_MAX, ..."""
    return Tensor(op, a.type, a.ne, (a, *more))


def glu(gate: Tensor, up: Tensor) -> Tensor:
    """A gated activation: act(gate) * up."""
    return Tensor("GLU", gate.type, gate.ne, (gate, up))


def view(a: Tensor, ne: tuple[int, ...], nb: Shape | None = None) -> Tensor:
    """The same bytes under another shape and other strides."""
    return Tensor("VIEW", a.type, ne, (a,), nb=nb, view_of=a)


def reshape(a: Tensor, *ne: int) -> Tensor:
    """The same dense bytes under another shape."""
    return Tensor("RESHAPE", a.type, ne, (a,), view_of=a)


def permute(a: Tensor, *axes: int) -> Tensor:
    """Axis i of `a` becomes axis axes[i]."""
    ne, nb = [0] * 4, [0] * 4
    for i, axis in enumerate(axes):
        ne[axis], nb[axis] = a.ne[i], a.nb[i]
    return Tensor("PERMUTE", a.type, tuple(ne), (a,), nb=(nb[0], nb[1], nb[2], nb[3]), view_of=a)


def cast(a: Tensor, ggml_type: GGMLType) -> Tensor:
    """A dense copy in another type."""
    return Tensor("CPY", ggml_type, a.ne, (a,))


def cont(a: Tensor, *ne: int) -> Tensor:
    """A dense copy."""
    return Tensor("CONT", a.type, ne or a.ne, (a,))


def flash_attn_ext(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention in one operation: (n_embd_head_v, n_head, n_tokens, n_stream), F32."""
    return Tensor("FLASH_ATTN_EXT", F32, (v.ne[0], q.ne[2], q.ne[1], q.ne[3]), (q, k, v, mask))
