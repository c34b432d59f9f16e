"""Which nodes does Metal compute in one go? They stay together when it puts a graph in order.

Source: llama.cpp 0c1e570 ggml/src/ggml-metal/ggml-metal-fusion.cpp (the table of patterns, their checks,
ggml_metal_fusion_next, ggml_metal_fusion_max, ggml_metal_fusion_add_alloc_deps).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.gguf import GGMLType
from ggufphys.graph.devices.backends.order import VIEWS, are_read_inside
from ggufphys.graph.ir import Tensor
from ggufphys.graph.strides import is_contiguous_from

MOST: Final = 16  # GGML_METAL_FUSION_MAX
MAX_SUMMED: Final = 8  # GGML_METAL_MOE_REDUCE_MAX_EXPERTS
MAX_EXPERTS: Final = 1024  # GGML_METAL_TOPK_MOE_MAX_EXPERTS
F32: Final = GGMLType.F32

Uses = Mapping[Tensor, int]
Check = Callable[[Sequence[Tensor], Sequence[Tensor], Uses], bool]
"""May these be computed in one go? Their nodes less views, all nodes from the first of them on, and who reads them."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Operations in a row, with views and without; a `chain` is one where each reads the one before, of one shape."""

    whole: tuple[str, ...]
    ops: tuple[str, ...]
    chain: bool
    check: Check


def _pattern(ops: str, check: Check, *, chain: bool = True) -> Pattern:
    whole = tuple(ops.split())
    return Pattern(whole, tuple(op for op in whole if op not in VIEWS), chain, check)


def _norm(nodes: Sequence[Tensor], _: Sequence[Tensor], __: Uses) -> bool:
    for before, node in pairwise(nodes):
        if node.src[0] is not before or node.type is not F32:
            return False
        if node.op != "SCALE" and not (node.src[1].ne[0] == nodes[0].ne[0] and is_contiguous_from(1, node.src[1])):
            return False
    return True


def _sums(nodes: Sequence[Tensor], _: Sequence[Tensor], __: Uses) -> bool:
    def layout(tensor: Tensor) -> tuple[object, ...]:
        return tensor.type, tensor.ne, tensor.nb

    return all(
        node.src[0] is before and layout(node.src[1]) == layout(before.src[1]) for before, node in pairwise(nodes)
    )


def _convolution(nodes: Sequence[Tensor], _: Sequence[Tensor], __: Uses) -> bool:
    conv, unary = nodes
    return unary.params[0] == "silu" and conv.type is unary.type is F32 and is_contiguous_from(1, unary)


def _states(nodes: Sequence[Tensor], _: Sequence[Tensor], __: Uses) -> bool:
    """A delta net's states, written where they are kept by the kernel itself."""
    net, copy = nodes
    if net.type is not F32 or net.is_output or copy.is_output:
        return False
    size, n_head, n_tokens, n_seqs = net.src[2].ne
    n_kept = net.params[0]
    assert isinstance(n_kept, int), "as many snapshots"
    shown, cache = copy.src[0], copy.src[1] if len(copy.src) > 1 else copy
    if shown.op != "VIEW" or shown.view_src is not net or not shown.is_contiguous:
        return False
    n_state = size * size * n_head
    return (
        shown.offset == 4 * size * n_head * n_tokens * n_seqs
        and cache.type is F32
        and cache.ne == (n_state, n_seqs, min(n_tokens, n_kept), 1)
        and cache.nb[:2] == (4, 4 * n_state)
    )


def _choice(nodes: Sequence[Tensor], after: Sequence[Tensor], uses: Uses) -> bool:
    """What chooses experts by a softmax, and weighs them."""
    n_nodes = {3: 5, 4: 6, 6: 10, 7: 11}[len(nodes)]
    group = after[:n_nodes]
    if tuple(node.op for node in group) not in _CHOICES:
        return False
    soft, reshaped, sort, ids, rows, *others = group
    logits, out = soft.src[0], group[-1]
    if len(soft.src) != 1 or tuple(soft.params[:2]) != (1.0, 0.0) or not logits.type is soft.type is out.type is F32:
        return False
    n_experts, n_tokens, n_used = logits.ne[0], logits.ne[1], ids.ne[0]
    if not 0 < n_used <= n_experts <= MAX_EXPERTS or logits.ne[2:] != (1, 1):
        return False
    if ids.ne != (n_used, n_tokens, 1, 1) or out.ne != (1, n_used, n_tokens, 1):
        return False
    if not (logits.is_contiguous and out.is_contiguous) or ids.nb[:2] != (4, 4 * n_experts):
        return False
    if reshaped.src[0] is not soft or sort.src[0] is not soft or ids.src[0] is not sort:
        return False
    if rows.src[:2] != (reshaped, ids):
        return False
    if len(others) >= 5:
        flat, sums, clamp, quotient, shaped = others[:5]
        chain = (rows, flat, sums, clamp)
        if any(node.src[0] is not source for source, node in zip(chain, (flat, sums, clamp), strict=False)):
            return False
        if quotient.src[:2] != (flat, clamp) or shaped.src[0] is not quotient:
            return False
    if len(others) in (1, 6) and others[-1].src[0] is not group[-2]:
        return False
    return are_read_inside(group, {ids, out}, uses)


def _weighted_sum(nodes: Sequence[Tensor], after: Sequence[Tensor], uses: Uses) -> bool:
    """What experts gave, each times its weight, and the sum of all."""
    n_used = len(nodes)
    group = after[: 2 * n_used]
    if tuple(node.op for node in group) != ("MUL", *["VIEW"] * n_used, *["ADD"] * (n_used - 1)):
        return False
    if after[2 * n_used - 1] is not nodes[-1]:
        return False
    product, views, sums = group[0], group[1 : n_used + 1], group[n_used + 1 :]
    experts, weights, out = product.src[0], product.src[1], group[-1]
    n_embd, n_tokens = experts.ne[0], experts.ne[2]
    if any(tensor.type is not F32 or not tensor.is_contiguous for tensor in (experts, weights, out)):
        return False
    if product.type is not F32 or experts.ne[1] != n_used or experts.ne[3] != 1:
        return False
    if weights.ne != (1, n_used, n_tokens, 1) or out.ne != (n_embd, n_tokens, 1, 1):
        return False
    for i, view in enumerate(views):
        if view.view_src is not product or view.src[0] is not product or view.offset != i * product.nb[1]:
            return False
        if view.ne[:2] != (n_embd, n_tokens) or view.nb[1] != product.nb[2]:
            return False
    so_far = (views[0], *sums)
    if any(node.src[:2] != (so_far[i], views[i + 1]) for i, node in enumerate(sums)):
        return False
    return are_read_inside(group, {out}, uses)


_CHOSEN: Final = "SOFT_MAX RESHAPE ARGSORT VIEW GET_ROWS"
_NORMED: Final = f"{_CHOSEN} RESHAPE SUM_ROWS CLAMP DIV RESHAPE"
# In llama.cpp's order; the snake activation is left out, which no graph here has.
PATTERNS: Final = (
    *(_pattern(f"{norm} {rest}", _norm) for norm in ("NORM", "RMS_NORM") for rest in ("MUL", "MUL ADD", "SCALE")),
    *(_pattern("ADD " * n, _sums) for n in range(2, 8)),
    _pattern("GATED_DELTA_NET CPY", _states, chain=False),
    *(
        _pattern(ops, _choice, chain=False)
        for ops in (_CHOSEN, f"{_CHOSEN} SCALE", _NORMED, f"{_NORMED} SCALE")
    ),
    *(
        _pattern(f"MUL {'VIEW ' * n}{'ADD ' * (n - 1)}", _weighted_sum, chain=False)
        for n in range(2, MAX_SUMMED + 1)
    ),
    _pattern("SSM_CONV UNARY", _convolution),
)  # fmt: skip
_CHOICES: Final = frozenset(pattern.whole for pattern in PATTERNS if pattern.check is _choice)
_BY_FIRST: Final = {op: [p for p in PATTERNS if p.ops[0] == op] for op in {p.ops[0] for p in PATTERNS}}


def longest_by_name(ops: Sequence[str], i: int) -> int:
    """How many nodes from `i` on have the operations of a pattern, views and all; 0 for none."""
    found = (len(p.whole) for p in _BY_FIRST.get(ops[i], ()) if tuple(ops[i : i + len(p.whole)]) == p.whole)
    return max(found, default=0)


def n_together(nodes: Sequence[Tensor], i: int, uses: Uses) -> int:
    """How many nodes from `i` on are computed in one go, or in several right behind each other; views count."""
    if nodes[i].op not in _BY_FIRST:
        return 1
    positions: list[int] = []
    j = i
    while j < len(nodes) and len(positions) < MOST:
        if nodes[j].op not in VIEWS:
            positions.append(j)
        j += 1
    total = 0
    while total < len(positions):
        n_ops = _fused(nodes, positions[total:], uses)
        if n_ops < 2:
            break
        total += n_ops
    return min(MOST, positions[total - 1] - i + 1) if total else 1


def _fused(nodes: Sequence[Tensor], positions: Sequence[int], uses: Uses) -> int:
    """How many of these nodes the longest pattern takes that holds for them; 1 for none."""
    best = 1
    for pattern in _BY_FIRST.get(nodes[positions[0]].op, ()):
        n = len(pattern.ops)
        if not best < n <= len(positions):
            continue
        group = [nodes[position] for position in positions[:n]]
        if tuple(node.op for node in group) != pattern.ops:
            continue
        if pattern.chain and not (_is_chain(group) and are_read_inside(group, {group[-1]}, uses)):
            continue
        if pattern.check(group, nodes[positions[0] : positions[0] + 2 * MOST], uses):
            best = n
    return best


def _is_chain(group: Sequence[Tensor]) -> bool:
    return all(before in node.src[:2] and before.ne == node.ne for before, node in pairwise(group))
