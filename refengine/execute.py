"""How is a graph evaluated? Each tensor lies where ggml's allocator would put it, each node is a numpy function.

A `Program` is a graph made ready: arrays over one buffer, and a list of functions without arguments. Running it again
with other inputs costs only the functions. Views are arrays over their base's bytes, so what is written into a cache
is seen by whoever reads it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np

from ggufphys.errors import UnsupportedError
from ggufphys.graph.allocating.alloc import allocate
from ggufphys.graph.ir import Graph, Tensor
from refengine import faithful
from refengine.arrays import Array, aligned_bytes, show
from refengine.blocks import U8
from refengine.ops import OPERATIONS, Numerics, Run, Step
from refengine.weights import Weights

NOTHING_TO_DO: Final = frozenset({"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE", "NONE"})

Trace = Callable[[Tensor, Array], object]


class Program:
    """A graph that can be run. `inputs` are the tensors that the caller fills before each run, as arrays.

    Args:
        graph: from `ggufphys.graph`.
        weights: of the model file.
        cache: gives the bytes of a cache's tensor, by the tensor's params.
        numerics: how faithfully to follow ggml.

    Raises:
        UnsupportedError: the graph has an operation that is not in the table.
    """

    def __init__(self, graph: Graph, weights: Weights, cache: Callable[[Tensor], U8], numerics: Numerics) -> None:
        self.graph = graph
        self._weights = weights
        self._cache = cache
        self._numerics = numerics
        allocation = allocate(graph)
        tensors = (*graph.leafs, *graph.nodes)
        self._buffer = aligned_bytes(allocation.buffer_bytes)
        self._offsets = dict(zip(tensors, allocation.offsets, strict=True))
        self._arrays: dict[Tensor, Array] = {}
        for tensor in tensors:
            self._arrays[tensor] = self._array(tensor)
        self.inputs: Mapping[Tensor, Array] = {t: self._arrays[t] for t in graph.leafs if t.is_input}
        self.outputs: Mapping[Tensor, Array] = {t: self._arrays[t] for t in graph.nodes if t.is_output}
        self._runs: tuple[tuple[Tensor, Run], ...] = tuple(self._bound())
        self._calls = tuple(run for _, run in self._runs)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the buffer for intermediate results."""
        return len(self._buffer)

    def run(self, trace: Trace | None = None) -> None:
        """Evaluate all nodes in order; `trace` sees each result as soon as it is there, valid until the next."""
        with np.errstate(invalid="ignore", over="ignore", under="ignore", divide="ignore"):
            if trace is None:
                for call in self._calls:
                    call()
                return
            for node, call in self._runs:
                call()
                trace(node, self._arrays[node])

    def _array(self, tensor: Tensor) -> Array:
        base = tensor.view_src or tensor
        if base.external:
            raw = self._weights.raw(base.name) if base.name else self._cache(base)
            return show(raw, tensor, tensor.offset)
        offset = self._offsets[base]
        assert offset is not None, f"{base.op} has no place"
        return show(self._buffer, tensor, offset + tensor.offset)

    def _bound(self) -> Iterator[tuple[Tensor, Run]]:
        to_the_bit = faithful.OPERATIONS if self._numerics.emulate and self._numerics.simd else {}
        for node in self.graph.nodes:
            if node.op in NOTHING_TO_DO:
                continue
            operation = to_the_bit.get(node.op) or OPERATIONS.get(node.op)
            if operation is None:
                raise UnsupportedError(f"the graph has {node.op}, which the numpy engine cannot compute yet")
            sources = tuple(self._arrays[source] for source in node.src)
            step = Step(node, self._arrays[node], sources, self._weights, self._numerics)
            yield node, operation(step)
