"""What does an operation get to work with? A node of the graph with its operands as arrays.

An operation is a function from a `Step` to a `Run`: it looks at shapes and types once, and returns what is to be done
each time the graph is evaluated. Legend of shapes, numpy order: S streams, T tokens, H heads, K heads of keys and
values, C cells of the cache, D a head's elements, E elements of a row, X experts, U experts used.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ggufphys.graph.ir import Tensor
from refengine.arrays import Array
from refengine.blocks import F32
from refengine.peers.simd import Simd
from refengine.quant.convert import to_f32
from refengine.weights import Weights

Run = Callable[[], object]
Operation = Callable[["Step"], Run]


@dataclass(frozen=True, slots=True)
class Numerics:
    """How faithfully ggml's arithmetic is followed where it is not that of real numbers.

    `emulate`: activations are quantised as ggml's dot products with quantised weights do, and attention over an F16
    cache adds up in F16. `simd`: sums are added up in
    the order of this code, too (None: in numpy's). `n_threads`: ggml divides a long cache among that many threads, and
    each sums up in F16 for itself.
    """

    emulate: bool = False
    n_threads: int = 1
    simd: Simd | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A node: where its result goes, and its sources in order; weights of blocks are arrays of blocks."""

    node: Tensor
    out: Array
    src: tuple[Array, ...]
    weights: Weights
    numerics: Numerics

    def is_weight(self, i: int) -> bool:
        """Whether a source lies in the model file."""
        tensor = self.node.src[i]
        return bool((tensor.view_src or tensor).external and (tensor.view_src or tensor).name)

    def reader(self, i: int) -> Callable[[], F32]:
        """A function that gives a source as F32: the same array each time where it needs no conversion."""
        tensor, array = self.node.src[i], self.src[i]
        if array.dtype == "f4":
            return lambda: array
        if self.is_weight(i):
            return lambda: self.weights.f32(tensor)
        return lambda: to_f32(array, tensor.type)
