"""What does ggml insist on when a node is made? Shapes and types of sources that go together, operation by operation.

Builders of graphs make nodes from weights and hyperparameters as files have them; where these don't go together, ggml
ends the process. Layouts in memory, which mostly builders decide, are looked at where a tensor is reshaped.

Source: llama.cpp 0c1e570 ggml/src/ggml.c, the assertions of the functions that make the nodes;
ggml/src/ggml-cpu/ggml-cpu.cpp, ggml_backend_cpu_device_supports_op.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Final

from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import Rope

FLOATS: Final = (GGMLType.F32, GGMLType.F16)
FACTORS: Final = (GGMLType.F32, GGMLType.F16, GGMLType.BF16)


def first_failure(graph: Graph, *, by_shape: bool = False) -> tuple[Tensor, str] | None:
    """The first node that ggml would not make, and what it insists on; None where it makes them all.

    `by_shape`: of operations alone that shapes decide about, in graphs whose nodes have no parameters.
    """
    for node in graph.nodes:
        asserted = ASSERTED.get(node.op) if not by_shape or node.op in BY_SHAPE else None
        if asserted is not None and not asserted(node):
            return node, MEANING[node.op]
    return None


def _repeats(node: Tensor) -> bool:
    a, b = node.src[:2]
    return all(n and m % n == 0 for m, n in zip(a.ne, b.ne, strict=True))


def _fills(node: Tensor) -> bool:
    return all(n and m % n == 0 for m, n in zip(node.ne, node.src[0].ne, strict=True))


def _mul_mat(node: Tensor) -> bool:
    w, x = node.src[:2]
    goes = w.ne[0] == x.ne[0] and w.ne[2] > 0 < w.ne[3] and x.ne[2] % w.ne[2] == 0 == x.ne[3] % w.ne[3]
    return goes and x.type in FACTORS


def _mul_mat_id(node: Tensor) -> bool:
    experts, x, ids = node.src[:3]
    return (
        ids.type is GGMLType.I32
        and experts.ne[0] == x.ne[0]
        and ids.ne[1] == x.ne[2]
        and x.ne[1] > 0
        and ids.ne[0] % x.ne[1] == 0
    )


def _get_rows(node: Tensor) -> bool:
    table, rows = node.src[:2]
    return table.ne[2] == rows.ne[1] and table.ne[3] == rows.ne[2] and rows.type is GGMLType.I32


def _concat(node: Tensor) -> bool:
    a, b = node.src[:2]
    (axis,) = node.params
    return a.type is b.type and all(a.ne[i] == b.ne[i] for i in range(4) if i != axis)


def _glu(node: Tensor) -> bool:
    a, b = node.src[0], node.src[-1]
    return a is b or (a.ne == b.ne and a.type is b.type)


def _rope(node: Tensor) -> bool:
    x, pos, *factors = node.src
    (rope,) = node.params
    assert isinstance(rope, Rope)
    goes = x.ne[2] * rope.n_pos_per_embd == pos.ne[0]
    return goes and all(f.type is GGMLType.F32 and f.ne[0] >= rope.n_dims // 2 for f in factors)


def _soft_max(node: Tensor) -> bool:
    has_sinks = bool(node.params[2])
    x, *others = node.src
    sinks = others.pop() if has_sinks else None
    return _sunk(x, sinks) and all(
        mask.ne[0] == x.ne[0] and mask.ne[1] >= x.ne[1] and mask.type in FLOATS for mask in others
    )


def _flash_attn_ext(node: Tensor) -> bool:
    q, k, v, *others = node.src
    sinks = others.pop() if node.params[3] else None
    goes = k.ne[0] == q.ne[0] and q.ne[3] == k.ne[3] == v.ne[3] and k.ne[2] > 0 and q.ne[2] % k.ne[2] == 0
    return goes and _sunk(q, sinks)


def _sunk(x: Tensor, sinks: Tensor | None) -> bool:
    return sinks is None or (sinks.type is GGMLType.F32 and sinks.ne[0] == x.ne[2])


def _set_rows(node: Tensor) -> bool:
    values, rows, destination = node.src[:3]
    return (
        destination.ne[0] == values.ne[0]
        and destination.ne[2:] == values.ne[2:]
        and values.ne[1] == rows.ne[0]
        and values.type in FLOATS
    )


def _same_elements(node: Tensor) -> bool:
    return prod(node.ne) == prod(node.src[0].ne)


def _reshape(node: Tensor) -> bool:
    return _same_elements(node) and node.src[0].is_contiguous


def _ssm_conv(node: Tensor) -> bool:
    x, kernel = node.src[:2]
    return x.ne[3] == 1 and kernel.ne[2:] == (1, 1) and x.ne[1] == kernel.ne[1] and x.ne[0] >= kernel.ne[0] - 1


def _ssm_scan(node: Tensor) -> bool:
    s, x, dt, a, b, c, _ids = node.src[:7]
    return (
        b.ne == c.ne
        and dt.ne[:3] == x.ne[1:]
        and s.ne[1:3] == x.ne[:2]
        and b.ne[0] == s.ne[0]
        and b.ne[2:] == x.ne[2:]
        and a.ne[1] == x.ne[1]
        and a.ne[0] in (1, s.ne[0])
    )


def _gated_delta_net(node: Tensor) -> bool:
    q, _k, v, gate, beta, state = node.src[:6]
    d, n_head = v.ne[:2]
    return (
        gate.ne[0] in (1, d)
        and beta.ne[0] == 1
        and state.ne[:3] == (d, d, n_head)
        and all(t.type is GGMLType.F32 for t in (q, v, gate, beta, state))
    )


def _all_f32(node: Tensor) -> bool:
    return all(source.type is GGMLType.F32 for source in node.src)


def _viewed(node: Tensor) -> bool:
    source = node.view_src
    return source is None or node.offset + node.nbytes <= source.nbytes


def _hc_comb(node: Tensor) -> bool:
    _, n_iter = node.params
    return _all_f32(node) and isinstance(n_iter, int) and 0 < n_iter < 1 << 31


ASSERTED: Final[Mapping[str, Callable[[Tensor], bool]]] = {
    "ADD": _repeats, "SUB": _repeats, "MUL": _repeats, "DIV": _repeats, "REPEAT": _fills,
    "MUL_MAT": _mul_mat, "MUL_MAT_ID": _mul_mat_id, "GET_ROWS": _get_rows, "SET_ROWS": _set_rows,
    "CONCAT": _concat, "GLU": _glu, "ROPE": _rope, "SOFT_MAX": _soft_max, "FLASH_ATTN_EXT": _flash_attn_ext,
    "RESHAPE": _reshape, "CPY": _same_elements, "VIEW": _viewed,
    "SSM_CONV": _ssm_conv, "SSM_SCAN": _ssm_scan, "GATED_DELTA_NET": _gated_delta_net, "DSV4_HC_COMB": _hc_comb,
}  # fmt: skip

BY_SHAPE: Final = frozenset({"ADD", "MUL", "MUL_MAT", "GET_ROWS", "CONCAT"})

MEANING: Final[Mapping[str, str]] = {
    "ADD": "a second operand that repeats over the first", "SUB": "a second operand that repeats over the first",
    "MUL": "a second operand that repeats over the first", "DIV": "a second operand that repeats over the first",
    "REPEAT": "a shape that is filled", "MUL_MAT": "rows as long as the columns that they multiply, of floats",
    "MUL_MAT_ID": "rows as long as the columns that they multiply, and experts by I32 numbers",
    "GET_ROWS": "I32 numbers of rows", "SET_ROWS": "rows of floats as long as those they replace",
    "CONCAT": "operands of one type whose other axes agree", "GLU": "a gate of the other half's shape and type",
    "ROPE": "F32 factors, one for each pair", "SOFT_MAX": "sinks in F32, one a head",
    "FLASH_ATTN_EXT": "keys as long as queries, sinks in F32, one a head",
    "RESHAPE": "as many elements as before, one behind the other",
    "CPY": "as many elements as before", "VIEW": "bytes inside of the tensor that is shown",
    "SSM_CONV": "a row of the kernel for each channel", "SSM_SCAN": "states, heads and groups that agree",
    "GATED_DELTA_NET": "states and gates of the heads' sizes, in F32",
    "DSV4_HC_COMB": "scale and base in F32, and 1 iteration or more that 31 bits count",
}  # fmt: skip
