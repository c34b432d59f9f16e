"""How large must the compute buffer be? A simulation of ggml's graph allocator, which lays tensors over each other.

Walking the nodes in order, a tensor's bytes are taken when it is computed and given back when its last reader has run.
Operations that may work in place take over a parent's bytes when nobody else reads them. The buffer's size is the
highest end that was ever in use.

Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_gallocr_alloc_graph_impl, ggml_dyn_tallocr_alloc.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

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
class Allocation:
    """Where each tensor of a graph lies: offsets in the order of its leafs and nodes, None for views and weights.

    `snapshots` has one entry for each of the graph's marks.
    """

    buffer_bytes: int
    offsets: tuple[int | None, ...]
    snapshots: tuple[Snapshot, ...] = ()


def allocate(graph: Graph, alignment: int = TENSOR_ALIGNMENT) -> Allocation:
    """Lay out the graph's tensors as ggml would; `alignment` is what the backend pads each of them to."""
    allocator = _GraphAllocator(graph, alignment)
    allocator.run()
    offsets = tuple(map(allocator.offsets.get, (*graph.leafs, *graph.nodes)))
    return Allocation(allocator.free.max_end, offsets, tuple(allocator.snapshots))


def side_by_side(graph: Graph, n_left_out: int = 0) -> int:
    """Bytes of all the graph's tensors, none over another: what no layout exceeds.

    Each of `n_left_out` layers is counted as twice the most that comes between two marks, since a layer's last nodes
    may come behind the next mark. Behind the last mark there is the last layer, for which no other stands.
    """
    sizes = [0 if node.view_src is not None else _padded(node.nbytes) for node in graph.nodes]
    leafs = sum(_padded(leaf.nbytes) for leaf in graph.leafs if not leaf.external)
    stretches = (sum(sizes[first:last]) for first, last in pairwise(graph.marks))
    return leafs + sum(sizes) + 2 * n_left_out * max(stretches, default=0)


def touched_bytes(plan: Allocation, graph: Graph) -> int:
    """Bytes of the buffer that are written when a smaller batch's graph runs in the layout of a larger one.

    `graph` has the same nodes as the one that `plan` was made for. ggml keeps the reserved layout whenever everything
    fits, and memory that nothing was written to is not resident; an input that no node reads is never filled.

    Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_gallocr_needs_realloc, ggml_gallocr_alloc_graph.
    """
    tensors = (*graph.leafs, *graph.nodes)
    assert len(tensors) == len(plan.offsets), "another graph"
    read = {source for node in graph.nodes for source in node.src}
    stretches = sorted(
        (offset, offset + tensor.nbytes)
        for offset, tensor in zip(plan.offsets, tensors, strict=True)
        if offset is not None and (not tensor.is_input or tensor in read)
    )
    touched = end = 0
    for start, stop in stretches:
        touched += max(0, stop - max(start, end))
        end = max(end, stop)
    return touched


def _padded(nbytes: int, alignment: int = TENSOR_ALIGNMENT) -> int:
    return -(-nbytes // alignment) * alignment


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


class _GraphAllocator:
    """The walk over one graph. `offsets` keeps where each tensor was put, `alive` who still holds bytes."""

    __slots__ = (
        "alignment", "alive", "free", "graph", "n_children", "n_views", "offsets", "positions", "sizes", "snapshots",
    )  # fmt: skip

    def __init__(self, graph: Graph, alignment: int) -> None:
        self.graph = graph
        self.alignment = alignment
        self.free = _FreeList()
        self.n_children: defaultdict[Tensor, int] = defaultdict(int)  # who still reads it
        self.n_views: defaultdict[Tensor, int] = defaultdict(int)  # who still shows it
        self.offsets: dict[Tensor, int] = {}
        self.sizes: dict[Tensor, int] = {}
        self.positions = {node: i for i, node in enumerate(graph.nodes)} if graph.marks else {}
        self.alive: set[Tensor] = set()
        self.snapshots: list[Snapshot] = []

    def run(self) -> None:
        nodes = self.graph.nodes
        for leaf in self.graph.leafs:
            if not leaf.external:
                self.place(leaf)
        for node in nodes:
            if node.view_src is not None:
                self.n_views[node.view_src] += 1
            for source in node.src:
                if not source.external:
                    self.n_children[source] += 1
        marks = [*self.graph.marks, len(nodes)]
        for i, node in enumerate(nodes):
            while i == marks[len(self.snapshots)]:
                self.snapshots.append(self.snapshot(i))
            if node.view_src is None:
                self.place(node)
            for parent in node.src:
                if not parent.external:
                    self.finish_reading(parent)

    def place(self, tensor: Tensor) -> None:
        self.alive.add(tensor)
        if tensor.op not in IN_PLACE or not self.place_in_parent(tensor):
            size = self.sizes[tensor] = _padded(tensor.nbytes, self.alignment)
            self.offsets[tensor] = self.free.take(size)

    def place_in_parent(self, tensor: Tensor) -> bool:
        """Take over the bytes of a parent with the same layout whose only reader this tensor is."""
        for parent in tensor.src:
            if parent not in self.alive or parent.is_output or self.n_children[parent] != 1 or self.n_views[parent]:
                continue
            if parent.ne == tensor.ne and parent.nb == tensor.nb and parent.type is tensor.type:
                self.offsets[tensor], self.sizes[tensor] = self.offsets[parent], self.sizes[parent]
                self.alive.remove(parent)
                return True
        return False

    def finish_reading(self, parent: Tensor) -> None:
        left = self.n_children[parent] = self.n_children[parent] - 1
        if left or self.n_views[parent]:
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
            self.alive.remove(tensor)
            self.free.give_back(self.offsets[tensor], self.sizes[tensor])

    def snapshot(self, now: int) -> Snapshot:
        """What decides the layout from node `now` on."""
        marks, begun = self.graph.marks, len(self.snapshots)
        second = marks[1] if len(marks) > 1 else 0
        old = max(second, marks[begun - OLD] if begun >= OLD else 0)
        holds = []
        for tensor in self.alive:
            born = self.positions.get(tensor, -1)
            lasting = born < old or tensor.is_input
            holds.append((tensor if lasting else born - now, self.offsets[tensor]))
        return tuple(self.free.blocks), frozenset(holds)
