"""In which order does a device run what it was given? Some backends put nodes forward, for their own good.

What runs in another order lives for another time, so the compute buffer changes.

Source: llama.cpp 0c1e570 ggml/src/ggml-backend.cpp, ggml_backend_sched_split_graph, graph_optimize, add_alloc_dep.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Final, TypeAlias

from ggufphys.frozen import dataclass, field
from ggufphys.graph.ir import Tensor

VIEWS: Final = frozenset({"RESHAPE", "TRANSPOSE", "VIEW", "PERMUTE"})


@dataclass(frozen=True, slots=True)
class Order:
    """The nodes of a run by their positions as given, and what is kept for longer than it is read.

    `kept` has for a position the tensors that are held until that node has run; for that behind the last one, until the
    first node of the next run has.
    """

    positions: Sequence[int]
    kept: Mapping[int, Sequence[Tensor]] = field(default_factory=dict)


Reorder: TypeAlias = Callable[[Sequence[Tensor], Mapping[Tensor, int]], Order]
"""The order of a run of nodes, given how many sources of the whole graph each tensor is."""


def are_read_inside(group: Sequence[Tensor], results: AbstractSet[Tensor], uses: Mapping[Tensor, int]) -> bool:
    """Does nobody but the group read what it computes, its results aside?

    Source: llama.cpp 0c1e570 ggml/src/ggml.c, ggml_can_fuse_subgraph_ext.
    """
    inside = Counter(chain.from_iterable(node.src for node in group))
    for node in group:
        if node in results:
            continue
        shown = node.view_src
        if node.is_output or inside[node] != uses[node]:
            return False
        if shown is not None and shown not in group and not (shown.external and shown.name):
            return False
    return True


def bytes_of(tensor: Tensor) -> Hashable:
    """Whose bytes these are; a graph may have several tensors for one cache."""
    base = tensor.view_src or tensor
    return ("cache", base.params) if base.external and not base.name else base
