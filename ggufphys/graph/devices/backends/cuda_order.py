"""What does CUDA keep for longer than it is read? Whatever it computes in one go is held until that is done.

Two groups of nodes are: what chooses experts, and their weighted sum. Nothing is put in another order, unless
GGML_CUDA_GRAPH_OPT asks for it.

Source: llama.cpp 0c1e570 ggml/src/ggml-cuda/ggml-cuda.cu, ggml_backend_cuda_graph_optimize, ggml_cuda_topk_moe_fusion,
ggml_cuda_match_moe_weighted_reduction; topk-moe.cu, ggml_cuda_should_use_topk_moe; ggml/src/ggml.c,
ggml_can_fuse_subgraph_ext.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ggufphys.gguf import GGMLType
from ggufphys.graph.devices.backends.order import Order, are_read_inside
from ggufphys.graph.ir import Tensor

MAX_SUMMED: Final = 15  # MOE_WEIGHTED_REDUCTION_MAX_EXPERTS
MAX_EXPERTS: Final = 512
ODD_EXPERTS: Final = frozenset({288, 576})  # that are no power of two, and have a kernel nevertheless
_NORM: Final = ("RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")

Uses = Mapping[Tensor, int]


def keep(nodes: Sequence[Tensor], uses: Uses) -> Order:
    """The nodes of a split in their own order, and what is held; `uses` counts each tensor as a source anywhere."""
    kept: dict[int, list[Tensor]] = {}
    i = 0
    ops = [node.op for node in nodes]
    while i < len(nodes):
        op = ops[i]
        may_sum = op == "MUL" and "VIEW" in ops[i + 1 : i + 3]
        if may_sum and (summed := _weighted_sum(nodes, i, uses)) is not None:
            n_nodes, read = summed
            i += n_nodes - 1
            _hold(kept, i, read)
        elif op in ("SOFT_MAX", "UNARY") and (n_nodes := _choice(nodes, i, uses)):
            group = nodes[i : i + n_nodes]
            # until the node behind the group has run, which may be the next split's first
            _hold(kept, i + n_nodes, (tensor for node in group for tensor in (node, *node.src)))
            i += n_nodes - 1
        i += 1
    return Order(range(len(nodes)), kept)


def _hold(kept: dict[int, list[Tensor]], until: int, tensors: Iterable[Tensor]) -> None:
    kept[until] = list(dict.fromkeys((*kept.get(until, ()), *tensors)))


def _choice(nodes: Sequence[Tensor], i: int, uses: Uses) -> int:
    """How many nodes from `i` on choose experts and weigh them, as one kernel does; 0 for none."""
    ops = [node.op for node in nodes[i : i + 13]]
    first = nodes[i]
    kind = first.params[0] if first.op == "UNARY" else first.op
    if kind in ("SOFT_MAX", "sigmoid"):
        k = 1
    elif kind == "softplus" and ops[1:2] == ["SQRT"] and nodes[i + 1].src[0] is first:
        k = 2
    else:
        return 0
    probabilities = nodes[i + k - 1]
    biased = ops[k + 1 : k + 2] == ["ADD"] and nodes[i + k + 1].src[0] is probabilities
    wanted = ["RESHAPE", *(["ADD"] if biased else []), "ARGSORT", "VIEW", "GET_ROWS"]
    if ops[k : k + len(wanted)] != wanted:
        return 0
    reshaped, (sort, view, rows) = nodes[i + k], nodes[i + k + len(wanted) - 3 : i + k + len(wanted)]
    sorted_by = nodes[i + k + 1] if biased else probabilities
    if reshaped.src[0] is not probabilities or sort.src[0] is not sorted_by or view.src[0] is not sort:
        return 0
    if rows.src[0] is not reshaped or rows.src[1] is not view:
        return 0
    k += len(wanted)
    k += _n_scaling(nodes, i + k, ops[k:])
    weights = nodes[i + k - 1]
    if not (are_read_inside(nodes[i : i + k], {view, weights}, uses) and _has_kernel(first, weights, view)):
        return 0
    return k


def _n_scaling(nodes: Sequence[Tensor], i: int, ops: Sequence[str]) -> int:
    """How many nodes from `i` on divide the weights by their sum, and scale them."""
    n_nodes = 0
    if ops[:1] == ["RESHAPE"]:
        if tuple(ops[:5]) != _NORM:
            return 0
        reshape, sums, clamp, quotient, last = nodes[i : i + 5]
        chain = (nodes[i - 1], reshape, sums, clamp)
        if any(node.src[0] is not source for source, node in zip(chain, (reshape, sums, clamp), strict=False)):
            return 0
        if quotient.src[:2] != (reshape, clamp) or last.src[0] is not quotient:
            return 0
        n_nodes = 5
    if ops[n_nodes : n_nodes + 1] == ["SCALE"] and nodes[i + n_nodes].src[0] is nodes[i + n_nodes - 1]:
        n_nodes += 1
    return n_nodes


def _has_kernel(first: Tensor, weights: Tensor, ids: Tensor) -> bool:
    """ggml_cuda_should_use_topk_moe."""
    n_experts = ids.nb[1] // ids.nb[0]
    is_power = n_experts & (n_experts - 1) == 0 and n_experts <= MAX_EXPERTS
    if not (is_power or n_experts in ODD_EXPERTS) or not (weights.is_contiguous and first.src[0].is_contiguous):
        return False
    return first.op != "SOFT_MAX" or (len(first.src) == 1 and tuple(first.params[:2]) == (1.0, 0.0))


def _weighted_sum(nodes: Sequence[Tensor], i: int, uses: Uses) -> tuple[int, tuple[Tensor, ...]] | None:
    """How many nodes from `i` on are the weighted sum of experts, and what it reads; None where there is none."""
    weighted, n_products = nodes[i], 1
    read: tuple[Tensor, ...] | None = None
    if not _is_product(weighted):
        return None
    if i + 1 < len(nodes) and _is_product(nodes[i + 1]):  # experts have scales of their own
        outer, inner = _factors(nodes[i + 1]), _factors(weighted)
        if outer is not None and inner is not None and outer[0] is weighted:
            weighted, read, n_products = nodes[i + 1], (*inner, outer[1]), 2
    read = read or _factors(weighted)
    n_used = weighted.ne[1]
    n_nodes = 2 * n_used + n_products - 1
    group = nodes[i : i + n_nodes]
    if read is None or not 2 <= n_used <= MAX_SUMMED or len(group) < n_nodes:
        return None
    if not _adds_up(weighted, group[n_products:]) or not are_read_inside(group, {group[-1]}, uses):
        return None
    return n_nodes, read


def _is_product(node: Tensor) -> bool:
    return node.op == "MUL" and node.type is GGMLType.F32 and node.is_contiguous


def _factors(product: Tensor) -> tuple[Tensor, Tensor] | None:
    """What experts gave, and a number for each of them, where these are what is multiplied."""

    def is_dense(tensor: Tensor) -> bool:
        return tensor.type is GGMLType.F32 and tensor.is_contiguous

    for full, numbers in (product.src[:2], product.src[1::-1]):
        if is_dense(full) and is_dense(numbers) and full.ne == product.ne and numbers.ne == (1, *product.ne[1:]):
            return full, numbers
    return None


def _adds_up(weighted: Tensor, nodes: Sequence[Tensor]) -> bool:
    """Are these a view of each expert's part, and the sum of all, from the first on?"""
    n_tokens = weighted.ne[2] * weighted.ne[3]
    views: list[Tensor] = []
    sums: list[Tensor] = []
    for node in nodes:
        if node.op == "VIEW":
            shown = node.view_src is weighted and node.src[0] is weighted and node.type is GGMLType.F32
            if not shown or node.ne != (weighted.ne[0], n_tokens, 1, 1) or node.nb[1] != weighted.nb[2]:
                return False
            if node.offset != len(views) * weighted.nb[1]:
                return False
            views.append(node)
        else:
            if node.op != "ADD" or node.type is not GGMLType.F32 or len(sums) + 1 >= len(views):
                return False
            if node.src[:2] != ((sums or views)[-1 if sums else 0], views[len(sums) + 1]):
                return False
            sums.append(node)
    return len(views) == weighted.ne[1] and len(sums) == len(views) - 1 and sums[-1].is_contiguous
