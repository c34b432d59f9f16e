"""In which order does a device run what it was given? Some backends put nodes forward, for their own good.

What runs in another order lives for another time, so the compute buffer changes.

Source: llama.cpp 0c1e570 ggml/src/ggml-backend.cpp, ggml_backend_sched_split_graph, graph_optimize, add_alloc_dep.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from ggufphys.frozen import dataclass, field
from ggufphys.graph.ir import Tensor


@dataclass(frozen=True, slots=True)
class Order:
    """The nodes of a run by their positions as given, and what is kept for longer than it is read.

    `kept` has for a position the tensors that are held until that node has run.
    """

    positions: Sequence[int]
    kept: Mapping[int, Sequence[Tensor]] = field(default_factory=dict)


Reorder: TypeAlias = Callable[[Sequence[Tensor], Mapping[Tensor, int]], Order]
"""The order of a run of nodes, given how many sources of the whole graph each tensor is."""
