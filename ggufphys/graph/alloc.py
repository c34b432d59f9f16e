"""How large must the compute buffer be? A simulation of ggml's graph allocator, which lays tensors over each other.

Walking the nodes in order, a tensor's bytes are taken when it is computed and given back when its last reader has run.
Operations that may work in place take over a parent's bytes when nobody else reads them. The buffer's size is the
highest end that was ever in use.

Two steps: `lifetimes` says when which stretches of the buffer are taken and given back, `lay_out` where they lie. The
first needs the graph, and no sizes but to see which are equal; so where a graph's sizes are known at several points
(`ggufphys.graph.affine`), the second alone is done for each of them.

Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_gallocr_alloc_graph_impl, ggml_dyn_tallocr_alloc.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import add
from typing import Final

from ggufphys.graph.affine import Point, at
from ggufphys.graph.ir import Graph, Tensor

TENSOR_ALIGNMENT: Final = 32  # ggml-impl.h; the CPU buffer type's alignment
# fmt: off
IN_PLACE: Final = frozenset({  # ggml_op_can_inplace
    "FILL", "SCALE", "DIAG_MASK_ZERO", "DIAG_MASK_INF", "ADD", "ADD_ID", "ADD1", "SUB", "MUL", "DIV", "SQR", "SQRT",
    "LOG", "UNARY", "ROPE", "ROPE_BACK", "SILU_BACK", "RMS_NORM", "RMS_NORM_BACK", "CLAMP", "SOFT_MAX", "SOFT_MAX_BACK",
})
# fmt: on


# What decides the layout of everything that follows, taken where a layer begins: the free stretches, and which tensors
# hold bytes where. Inputs, what is from before the second layer and what has lived through `OLD` layers stand for
# themselves, all else as how many nodes ago it ran: snapshots in corresponding places of alike layers are equal.
OLD: Final = 2
Snapshot = tuple[tuple[tuple[int, int], ...], frozenset[tuple[Tensor | int, int]]]


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """When stretches of the buffer are taken and given back; they are numbered in the order in which they are taken.

    An event is a stretch's number when it is taken, its complement when it is given back. `places` has the stretch of
    each of the graph's leafs and nodes, None for views and weights. `sizes` are bytes, before padding. `marks` says for
    each of the graph's how many events there were, and which tensors then held which stretches. `unread` are stretches
    of inputs that no node reads.
    """

    events: tuple[int, ...]
    sizes: tuple[int, ...]
    places: tuple[int | None, ...]
    marks: tuple[tuple[int, tuple[tuple[Tensor | int, int], ...]], ...]
    unread: frozenset[int]


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where each stretch of a graph's lifetimes begins. `snapshots` has one entry for each of the graph's marks."""

    buffer_bytes: int
    lifetimes: Lifetimes
    starts: tuple[int, ...]
    snapshots: tuple[Snapshot, ...] = ()

    @property
    def offsets(self) -> tuple[int | None, ...]:
        """Where each tensor lies, in the order of the graph's leafs and nodes; None for views and weights."""
        return tuple(None if place is None else self.starts[place] for place in self.lifetimes.places)


def allocate(graph: Graph, alignment: int = TENSOR_ALIGNMENT) -> Allocation:
    """Lay out the graph's tensors as ggml would; `alignment` is what the backend pads each of them to."""
    return lay_out(lifetimes(graph), alignment)


def lifetimes(graph: Graph) -> Lifetimes:
    """When each stretch of the graph's buffer is taken and given back."""
    return _Walk(graph).run()


def lay_out(lifetimes: Lifetimes, alignment: int = TENSOR_ALIGNMENT, point: Point = ()) -> Allocation:
    """Put each stretch where ggml's allocator would, with the sizes they have at `point`."""
    sizes = padded_sizes(lifetimes, alignment, point)
    free = _FreeList()
    take, give_back = free.take, free.give_back
    starts = [0] * len(sizes)
    snapshots: list[Snapshot] = []
    first = 0
    for last, held in (*lifetimes.marks, (len(lifetimes.events), None)):
        for event in lifetimes.events[first:last]:
            if event >= 0:
                starts[event] = take(sizes[event])
            else:
                give_back(starts[~event], sizes[~event])
        first = last
        if held is not None:
            snapshots.append((tuple(free.blocks), frozenset([(holder, starts[place]) for holder, place in held])))
    return Allocation(free.max_end, lifetimes, tuple(starts), tuple(snapshots))


def padded_sizes(lifetimes: Lifetimes, alignment: int = TENSOR_ALIGNMENT, point: Point = ()) -> list[int]:
    """Bytes of each stretch at `point`."""
    return [-(-(size if type(size) is int else at(size, point)) // alignment) * alignment for size in lifetimes.sizes]


def side_by_side(
    lifetimes: Lifetimes, n_left_out: int = 0, alignment: int = TENSOR_ALIGNMENT, point: Point = ()
) -> int:
    """Bytes of all stretches, none over another: what no layout exceeds.

    Each of `n_left_out` layers is counted as twice the most that comes between two marks, since a layer's last nodes
    may come behind the next mark. Behind the last mark there is the last layer, for which no other stands.
    """
    sizes = padded_sizes(lifetimes, alignment, point)
    between = (
        sum(sizes[event] for event in lifetimes.events[first:last] if event >= 0)
        for (first, _), (last, _) in pairwise(lifetimes.marks)
    )
    return sum(sizes) + 2 * n_left_out * (max(between, default=0) if n_left_out else 0)


def written_sizes(lifetimes: Lifetimes, graph: Graph) -> list[int]:
    """Bytes that are written of each stretch when a smaller batch's graph, of the same nodes, runs in the layout.

    ggml keeps the reserved layout whenever everything fits, and memory that nothing was written to is not resident; an
    input that no node reads is never filled.

    Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_gallocr_needs_realloc, ggml_gallocr_alloc_graph.
    """
    tensors = (*graph.leafs, *graph.nodes)
    assert len(tensors) == len(lifetimes.places), "another graph"
    written = [0] * len(lifetimes.sizes)
    for place, tensor in zip(lifetimes.places, tensors, strict=True):
        if place is not None and place not in lifetimes.unread:
            written[place] = max(written[place], tensor.nbytes)
    return written


def written_sizes_at(lifetimes: Lifetimes, point: Point) -> list[int]:
    """The same when the graph itself runs at another point, where its lifetimes hold too."""
    return [0 if i in lifetimes.unread else at(size, point) for i, size in enumerate(lifetimes.sizes)]


def union_bytes(starts: Sequence[int], sizes: Sequence[int]) -> int:
    """Bytes that lie in at least one of the stretches."""
    touched = end = 0
    for start, stop in sorted(zip(starts, map(add, starts, sizes), strict=True)):
        if stop > end:
            touched += stop - (start if start > end else end)
            end = stop
    return touched


class _FreeList:
    """Free stretches of one growing buffer, sorted by offset; the last one is the open end."""

    __slots__ = ("blocks", "max_end")

    def __init__(self) -> None:
        self.blocks: list[tuple[int, int]] = [(0, 1 << 62)]  # (offset, size)
        self.max_end = 0

    def take(self, size: int) -> int:
        """The offset of the smallest free stretch that fits (the later one of equals), else of the open end."""
        best, best_size = len(self.blocks) - 1, 1 << 63
        for i, (_, free) in enumerate(self.blocks[:-1]):
            if size <= free <= best_size:
                best, best_size = i, free
        offset, free = self.blocks[best]
        if free == size:
            del self.blocks[best]
        else:
            self.blocks[best] = (offset + size, free - size)
        self.max_end = max(self.max_end, offset + size)
        return offset

    def give_back(self, offset: int, size: int) -> None:
        """Return a stretch, joined with its free neighbours as far as ggml sees them.

        Returning nothing, for a tensor without elements, may leave a stretch of no bytes that keeps others apart. It
        may even lie within another tensor, so that all stretches must be looked at.
        """
        blocks, end = self.blocks, offset + size
        for i, (start, free) in enumerate(blocks):
            if start + free == offset:
                free += size
                if i + 1 < len(blocks) and blocks[i + 1][0] == start + free:
                    free += blocks.pop(i + 1)[1]
                blocks[i] = (start, free)
                return
            if start == end:
                if i and sum(blocks[i - 1]) == offset:
                    offset, size = blocks[i - 1][0], offset - blocks[i - 1][0] + size
                    del blocks[i]
                    i -= 1
                blocks[i] = (offset, size + free)
                return
        i = next((i for i, (start, _) in enumerate(blocks) if start >= offset), len(blocks))
        blocks.insert(i, (offset, size))


class _Walk:
    """The walk over one graph. `alive` says who holds a stretch, `places` also who ever did."""

    __slots__ = ("alive", "events", "graph", "marks", "n_children", "n_views", "places", "positions", "sizes")

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.n_children: defaultdict[Tensor, int] = defaultdict(int)  # who still reads it
        self.n_views: defaultdict[Tensor, int] = defaultdict(int)  # who still shows it
        self.positions = {node: i for i, node in enumerate(graph.nodes)} if graph.marks else {}
        self.alive: dict[Tensor, int] = {}
        self.places: dict[Tensor, int] = {}
        self.events: list[int] = []
        self.sizes: list[int] = []
        self.marks: list[tuple[int, tuple[tuple[Tensor | int, int], ...]]] = []

    def run(self) -> Lifetimes:
        graph, n_children = self.graph, self.n_children
        for leaf in graph.leafs:
            if not leaf.external:
                self.place(leaf)
        for node in graph.nodes:
            if node.view_src is not None:
                self.n_views[node.view_src] += 1
            for source in node.src:
                if not source.external:
                    n_children[source] += 1
        unread = frozenset(place for leaf, place in self.alive.items() if leaf.is_input and not n_children[leaf])
        marks = [*graph.marks, len(graph.nodes)]
        for i, node in enumerate(graph.nodes):
            while i == marks[len(self.marks)]:
                self.marks.append((len(self.events), self.holders(i)))
            if node.view_src is None:
                self.place(node)
            for parent in node.src:
                if not parent.external:
                    left = n_children[parent] = n_children[parent] - 1
                    if not left:
                        self.finish(parent)
        places = tuple(map(self.places.get, (*graph.leafs, *graph.nodes)))
        return Lifetimes(tuple(self.events), tuple(self.sizes), places, tuple(self.marks), unread)

    def place(self, tensor: Tensor) -> None:
        if tensor.op not in IN_PLACE or not self.place_in_parent(tensor):
            place = self.places[tensor] = self.alive[tensor] = len(self.sizes)
            self.sizes.append(tensor.nbytes)
            self.events.append(place)

    def place_in_parent(self, tensor: Tensor) -> bool:
        """Take over the bytes of a parent with the same layout whose only reader this tensor is."""
        for parent in tensor.src:
            if parent not in self.alive or parent.is_output or self.n_children[parent] != 1 or self.n_views[parent]:
                continue
            if parent.ne == tensor.ne and parent.nb == tensor.nb and parent.type is tensor.type:
                self.places[tensor] = self.alive[tensor] = self.alive.pop(parent)
                return True
        return False

    def finish(self, parent: Tensor) -> None:
        """Its last reader has run."""
        if self.n_views[parent]:
            return
        shown = parent.view_src
        if shown is None:
            self.release(parent)
            return
        views = self.n_views[shown] = self.n_views[shown] - 1
        if not views and not self.n_children[shown]:
            self.release(shown)

    def release(self, tensor: Tensor) -> None:
        if tensor in self.alive and not tensor.is_output:
            self.events.append(~self.alive.pop(tensor))

    def holders(self, now: int) -> tuple[tuple[Tensor | int, int], ...]:
        """Who holds which stretch when node `now` comes; see `Snapshot`."""
        marks, begun = self.graph.marks, len(self.marks)
        second = marks[1] if len(marks) > 1 else 0
        old = max(second, marks[begun - OLD] if begun >= OLD else 0)
        held: list[tuple[Tensor | int, int]] = []
        for tensor, place in self.alive.items():
            born = self.positions.get(tensor, -1)
            held.append((tensor if born < old or tensor.is_input else born - now, place))
        return tuple(held)
