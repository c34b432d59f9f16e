"""How much does each node of a graph compute, and how many bytes does it move?

FLOPs are the multiplications and additions of products, attention and its indexers, convolutions, scans and
hyper-connections. Element-wise work is not among them: its bytes are what takes time. Bytes are what a node must read
and write at least once: of a weight, of a cache, or of activations, which is all else. Views cost nothing.

Legend: T tokens, D head size, C cells, H heads. Source: llama.cpp 0c1e570 ggml/src/ggml.c, ggml-cpu/ops.cpp.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Final

from ggufphys.frozen import dataclass, fields
from ggufphys.gguf import TensorInfo
from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import as_known

VIEWS: Final = frozenset({"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What is computed and moved. Not whole numbers where they are means: of experts chosen, or of layers alike."""

    flops: float = 0
    weight_bytes: float = 0  # read
    cache_read_bytes: float = 0
    cache_written_bytes: float = 0
    activation_read_bytes: float = 0
    activation_written_bytes: float = 0

    @property
    def cache_bytes(self) -> float:
        """Read and written."""
        return self.cache_read_bytes + self.cache_written_bytes

    @property
    def activation_bytes(self) -> float:
        """Read and written."""
        return self.activation_read_bytes + self.activation_written_bytes

    @property
    def total_bytes(self) -> float:
        """All that is moved."""
        return self.weight_bytes + self.cache_bytes + self.activation_bytes

    @property
    def intensity(self) -> float:
        """FLOPs a byte; 0 where nothing is moved."""
        return self.flops / self.total_bytes if self.total_bytes else 0.0

    def plus(self, other: "Cost", times: float = 1) -> "Cost":
        """The sum of both, the other so many times."""
        return Cost(**{name: getattr(self, name) + times * getattr(other, name) for name in FIELDS})

    def rounded(self) -> "Cost":
        """The cost in whole FLOPs and bytes."""
        return Cost(**{name: round(getattr(self, name)) for name in FIELDS})


FIELDS: Final = tuple(field.name for field in fields(Cost))

Alike = Callable[[str], Sequence[TensorInfo]]
"""The weights that one of them stands for, by its name: the cost of reading it is then their mean."""


def node_cost(node: Tensor, alike: Alike | None = None) -> Cost:
    """What one node computes and moves. Nothing, if its result has no elements."""
    n_elements = prod(node.ne)
    if node.op in VIEWS or node.op == "NONE" or not n_elements:
        return Cost()
    read = {"weight": 0.0, "cache": 0.0, "activation": 0.0}
    for i, source in enumerate(node.src):
        share = _share_read(node, i) if prod(source.ne) else 0
        held = _held(source)
        if held == "weight" and share:
            others = alike((source.view_src or source).name) if alike is not None else ()
            types = [as_known(info.ggml_type) for info in others] or [source.type]
            read[held] += share * sum(tensor_bytes(t, prod(source.ne)) for t in types) / len(types)
        else:
            read[held] += share * tensor_bytes(source.type, prod(source.ne))
    written = tensor_bytes(node.type, prod(node.src[0].ne) if node.op == "SET_ROWS" else n_elements)
    to_cache = _held(node) == "cache"
    return Cost(
        flops=FLOPS[node.op](node) if node.op in FLOPS else 0,
        weight_bytes=read["weight"],
        cache_read_bytes=read["cache"],
        cache_written_bytes=written if to_cache else 0,
        activation_read_bytes=read["activation"],
        activation_written_bytes=0 if to_cache else written,
    )


def node_costs(graph: Graph, alike: Alike | None = None) -> Iterator[tuple[Tensor, Cost]]:
    """Each node that costs something, in the order they run."""
    for node in graph.nodes:
        if node.op not in VIEWS and node not in graph.idle:
            yield node, node_cost(node, alike)


def tensor_bytes(ggml_type: GGMLType, n_elements: int) -> float:
    """Bytes of so many elements, without padding."""
    size = SIZES[ggml_type]
    return n_elements * size.type_size / size.block_size


def distinct_experts(n_expert: int, n_expert_used: int, n_tokens: int) -> float:
    """How many experts `n_tokens` tokens are expected to choose among them, each with the same chance.

    A token leaves one out with probability 1 - k/n, and tokens choose by themselves: `n * (1 - (1 - k/n)^T)`.
    Real routers prefer some experts, so real batches touch fewer.
    """
    return n_expert * (1 - (1 - n_expert_used / n_expert) ** n_tokens)


def _held(tensor: Tensor) -> str:
    """Whose bytes a tensor shows."""
    owner = tensor.view_src or tensor
    if not owner.external:
        return "activation"
    return "weight" if owner.name else "cache"


def _share_read(node: Tensor, i: int) -> float:
    """The part of operand `i` that the node reads."""
    source = node.src[i]
    rows = source.ne[1] * source.ne[2] * source.ne[3]
    match node.op, i:
        case "GET_ROWS", 0:  # as many rows as are asked for
            return prod(node.src[1].ne) / rows
        case ("SET_ROWS", 2) | ("CPY", 1) | ("FILL", 0):  # where to, not what
            return 0
        case "MUL_MAT_ID", 0:
            n_used, n_tokens = node.src[2].ne[:2]
            return distinct_experts(source.ne[2], n_used, n_tokens) / source.ne[2]
        case "ADD_ID", 1:
            n_used, n_tokens = node.src[2].ne[:2]
            return distinct_experts(source.ne[1], n_used, n_tokens) / source.ne[1]
        case "SSM_SCAN", 0:  # the states of the batch's sequences
            return node.src[6].ne[0] / source.ne[3]
    return 1


# -- FLOPs


def _mul_mat(node: Tensor) -> int:
    """A multiplication and an addition for each weight and token: 2 * n_in * n_out * T."""
    return 2 * node.src[0].ne[0] * prod(node.ne)


def _flash_attn(node: Tensor) -> int:
    """QK and the mixture of values: 2 * (D_k + D_v) * C * T * H, masked cells too."""
    q, k, v = node.src[:3]
    return 2 * (k.ne[0] + v.ne[0]) * k.ne[1] * q.ne[1] * q.ne[2] * q.ne[3]


def _conv(node: Tensor) -> int:
    return 2 * node.src[1].ne[0] * prod(node.ne)


def _scan(flops: int, x: int) -> Callable[[Tensor], int]:
    """So many FLOPs for each element of the state (D * D a head) and token, whose shapes are those of operand `x`."""

    def count(node: Tensor) -> int:
        return flops * node.src[x].ne[0] * prod(node.src[x].ne)

    return count


def _ssm_scan(node: Tensor) -> int:
    """State times decay, plus input, and the sum over the state: 5 for each of d_state elements a channel."""
    return 5 * node.src[0].ne[0] * prod(node.src[1].ne)


def _indexer(node: Tensor) -> int:
    """Products of queries and keys, and their sum over heads, weighted: 2 * (D + 1) * H * C * T."""
    d, n_head = node.src[0].ne[:2]
    return 2 * (d + 1) * n_head * prod(node.ne)


def _streams_read(node: Tensor) -> int:
    """A weighted sum of N streams: 2 * N for each element."""
    return 2 * node.src[0].ne[1] * prod(node.ne)


def _streams_written(node: Tensor) -> int:
    """What is written times a weight, and a weighted sum of the N streams where they mix: 2 + 2 * N, or 2."""
    mixed = node.src[1].ne[1] if len(node.src) > 3 else 0
    return 2 * (1 + mixed) * prod(node.ne)


FLOPS: Final[Mapping[str, Callable[[Tensor], int]]] = {
    "MUL_MAT": _mul_mat,
    "MUL_MAT_ID": _mul_mat,
    "FLASH_ATTN_EXT": _flash_attn,
    "LIGHTNING_INDEXER": _indexer,
    "DSV4_HC_PRE": _streams_read,
    "DSV4_HC_POST": _streams_written,
    "SSM_CONV": _conv,
    "SSM_SCAN": _ssm_scan,
    "GATED_DELTA_NET": _scan(7, 2),  # decay 1, S k 2, outer product 2, S q 2
    "GATED_LINEAR_ATTN": _scan(5, 1),  # decay 1, outer product 2, S q 2
    "RWKV_WKV6": _scan(7, 1),  # outer product 1, bonus 2, decay and sum 2, times r 2
    "RWKV_WKV7": _scan(9, 3),  # S a 2, decay and two outer products 5, times r 2
}
