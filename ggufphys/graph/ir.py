"""What is a graph made of? Tensors with an operation and sources, at ggml's own granularity, and their order.

Views, reshapes and in-place operations are tensors like any other, since they decide what the allocator may reuse.
Shapes `ne` and strides `nb` are ggml's: four of each, innermost first, `nb` in bytes.

Source: llama.cpp 0c1e570 ggml/include/ggml.h, ggml_tensor; ggml/src/ggml.c, ggml_visit_parents_graph, ggml_nbytes.
"""

from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.gguf.ggml_types import SIZES, GGMLType

Shape = tuple[int, int, int, int]

_ONES: Final = ((1, 1, 1, 1), (1, 1, 1), (1, 1), (1,), ())
# Block and byte size by the type's number: hashing an enum's member would take longer than the rest of making a tensor.
_BLOCKS: Final = [(1, 0)] * (max(GGMLType) + 1)
for _type, _size in SIZES.items():
    _BLOCKS[_type] = (_size.block_size, _size.type_size)


class Tensor:
    """A node of the graph (compared by identity).

    `external` tensors have their bytes elsewhere: weights and caches. `view_src` is the tensor whose bytes a view
    shows, never itself a view, and `offset` the bytes of it in front of the view. Inputs are filled by the caller
    before the graph runs, outputs read after it has run. `params` are the operation's own numbers, in the order of the
    function in `ops` that makes the node; an input's and a cache's say what it holds.
    """

    __slots__ = (
        "_nb", "external", "is_input", "is_output", "name", "ne", "offset", "op", "params", "src", "type", "view_src",
    )  # fmt: skip

    def __init__(
        self,
        op: str,
        ggml_type: GGMLType,
        ne: tuple[int, ...],
        src: tuple["Tensor", ...] = (),
        *,
        nb: Shape | None = None,
        params: tuple[object, ...] = (),
        view_of: "Tensor | None" = None,
        offset: int = 0,
        is_input: bool = False,
        external: bool = False,
        name: str = "",
    ) -> None:
        self.op = op
        self.type = ggml_type
        shape: Shape = ne if len(ne) == 4 else (*ne, *_ONES[len(ne)])
        self.ne = shape
        self._nb = nb  # None for dense ones until somebody asks
        self.src = src
        self.params = params
        if view_of is None:
            self.view_src: Tensor | None = None
            self.offset = 0
        else:
            self.view_src = view_of.view_src or view_of
            self.offset = view_of.offset + offset
        self.is_input = is_input
        self.is_output = False
        self.external = external
        self.name = name  # of a weight: its tensor's; of an input: what it is

    @property
    def nb(self) -> Shape:
        """Bytes from one element to the next along each axis."""
        if self._nb is None:
            self._nb = contiguous_strides(self.type, self.ne)
        return self._nb

    @property
    def nbytes(self) -> int:
        """Bytes from the first element to the end of the last, strides included."""
        block_size, type_size = _BLOCKS[self.type]
        n0, n1, n2, n3 = self.ne
        if self._nb is None:
            return type_size * n0 // block_size * n1 * n2 * n3
        stride0, stride1, stride2, stride3 = self._nb
        row = type_size + (n0 - 1) * stride0 if block_size == 1 else n0 * stride0 // block_size
        return row + (n1 - 1) * stride1 + (n2 - 1) * stride2 + (n3 - 1) * stride3

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie dense and in order; strides of axes of one element do not count."""
        if self._nb is None:
            return True
        dense = contiguous_strides(self.type, self.ne)
        return all(n == 1 or own == other for n, own, other in zip(self.ne, self._nb, dense, strict=True))

    def lies_like(self, other: "Tensor") -> bool:
        """Whether type, shape and strides are the same."""
        if self.type is not other.type or self.ne != other.ne:
            return False
        return (self._nb is None and other._nb is None) or self.nb == other.nb


def contiguous_strides(ggml_type: GGMLType, ne: Shape) -> Shape:
    """Byte strides of a dense tensor."""
    block_size, type_size = _BLOCKS[ggml_type]
    row = type_size * ne[0] // block_size
    matrix = row * ne[1]
    return (type_size, row, matrix, matrix * ne[2])


class Graph:
    """Tensors in the order ggml would run them. `marks` says how many nodes there were when each layer began.

    `probed` are nodes, and their layers, that llama.cpp gives up for simpler ones if they would run elsewhere than on
    their layer's device; `pinned` are those that it keeps there, as it does norms. `idle` nodes are laid out and not
    computed: they belong to batches of another kind. `more` are bytes behind a node's own, for a device's scratch.
    """

    __slots__ = ("_seen", "idle", "leafs", "marks", "more", "nodes", "pinned", "probed")

    def __init__(self) -> None:
        self.nodes: list[Tensor] = []
        self.leafs: list[Tensor] = []  # no operation: inputs, weights, caches
        self.marks: list[int] = []
        self.probed: dict[Tensor, int] = {}
        self.pinned: dict[Tensor, int] = {}
        self.idle: set[Tensor] = set()
        self.more: dict[Tensor, int] = {}
        self._seen: set[Tensor] = set()

    def expand(self, tensor: Tensor) -> Tensor:
        """Add the tensor behind all it depends on, depth first and sources left to right; returns it."""
        seen = self._seen
        if tensor in seen:
            return tensor
        seen.add(tensor)
        if tensor.op == "NONE":
            self.leafs.append(tensor)
            return tensor
        node, sources = tensor, iter(tensor.src)
        above = []  # nodes that wait for a source: chains of some models are longer than Python's stack
        while True:
            for source in sources:
                if source not in seen:
                    seen.add(source)
                    if source.op == "NONE":
                        self.leafs.append(source)
                    else:
                        above.append((node, sources))
                        node, sources = source, iter(source.src)
                        break
            else:
                self.nodes.append(node)
                if not above:
                    return tensor
                node, sources = above.pop()

    def expand_idle(self, tensor: Tensor) -> None:
        """Add the tensor and all it depends on without computing them: what is new is idle."""
        n_before = len(self.nodes)
        self.expand(tensor)
        self.idle.update(self.nodes[n_before:])


@dataclass(frozen=True, slots=True)
class Part:
    """What one device runs; its graph's marks are those of `layers`, from the first to the last that has nodes here.

    It `folds` if layers that were not built take and give back what those of their kind do, and nothing else.
    """

    graph: Graph
    layers: range
    folds: bool = True
