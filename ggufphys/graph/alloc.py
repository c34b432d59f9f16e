"""How large must the compute buffer be? A simulation of ggml's graph allocator, which lays tensors over each other.

Walking the nodes in order, a tensor's bytes are taken when it is computed and given back when its last reader has run.
Operations that may work in place take over a parent's bytes when nobody else reads them. The buffer's size is the
highest end that was ever in use.

Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_gallocr_alloc_graph_impl, ggml_dyn_tallocr_alloc.
"""

from dataclasses import dataclass
from typing import Final

from ggufphys.graph.ir import Graph, Tensor

TENSOR_ALIGNMENT: Final = 32  # ggml-impl.h; the CPU buffer type's alignment
# fmt: off
IN_PLACE: Final = frozenset({  # ggml_op_can_inplace
    "FILL", "SCALE", "DIAG_MASK_ZERO", "DIAG_MASK_INF", "ADD", "ADD_ID", "ADD1", "SUB", "MUL", "DIV", "SQR", "SQRT",
    "LOG", "UNARY", "ROPE", "ROPE_BACK", "SILU_BACK", "RMS_NORM", "RMS_NORM_BACK", "CLAMP", "SOFT_MAX", "SOFT_MAX_BACK",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where each tensor of a graph lies: offsets in the order of its leafs and nodes, None for views and weights."""

    buffer_bytes: int
    offsets: tuple[int | None, ...]


def allocate(graph: Graph) -> Allocation:
    """Lay out the graph's tensors as ggml would."""
    allocator = _GraphAllocator(graph)
    size = allocator.run()
    offsets = tuple(
        None if t.external or t.view_src is not None else allocator.state(t).offset
        for t in (*graph.leafs, *graph.nodes)
    )
    return Allocation(size, offsets)


def touched_bytes(plan: Allocation, graph: Graph) -> int:
    """Bytes of the buffer that are written when a smaller batch's graph runs in the layout of a larger one.

    `graph` has the same nodes as the one that `plan` was made for. ggml keeps the reserved layout whenever everything
    fits, and memory that nothing was written to is not resident; an input that no node reads is never filled.

    Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_gallocr_needs_realloc, ggml_gallocr_alloc_graph.
    """
    tensors = (*graph.leafs, *graph.nodes)
    assert len(tensors) == len(plan.offsets), "another graph"
    read = {id(source) for node in graph.nodes for source in node.src}
    stretches = sorted(
        (offset, offset + tensor.nbytes)
        for offset, tensor in zip(plan.offsets, tensors, strict=True)
        if offset is not None and (id(tensor) in read or not tensor.is_input)
    )
    touched = end = 0
    for start, stop in stretches:
        touched += max(0, stop - max(start, end))
        end = max(end, stop)
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
        """Return a stretch, joined with its free neighbours."""
        if size == 0:
            return
        i = 0
        while i < len(self.blocks) and self.blocks[i][0] < offset:
            i += 1
        end = offset + size
        if i < len(self.blocks) and self.blocks[i][0] == end:
            end += self.blocks.pop(i)[1]
        if i > 0 and sum(self.blocks[i - 1]) == offset:
            i -= 1
            offset = self.blocks.pop(i)[0]
        self.blocks.insert(i, (offset, end - offset))


class _State:
    """What the allocator knows of a tensor: who still reads it, who still shows it, and where it lies."""

    __slots__ = ("n_children", "n_views", "offset", "owned")

    def __init__(self) -> None:
        self.n_children = 0
        self.n_views = 0
        self.offset = 0
        self.owned = False


class _GraphAllocator:
    __slots__ = ("free", "graph", "states")

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.free = _FreeList()
        self.states: dict[int, _State] = {}

    def run(self) -> int:
        for leaf in self.graph.leafs:
            self.place(leaf)
        for node in self.graph.nodes:
            self.count_readers(node)
        for node in self.graph.nodes:
            for parent in node.src:
                self.place(parent)
            self.place(node)
            for parent in node.src:
                self.finish_reading(parent)
        return self.free.max_end

    def state(self, tensor: Tensor) -> _State:
        state = self.states.get(id(tensor))
        if state is None:
            state = self.states[id(tensor)] = _State()
        return state

    def count_readers(self, node: Tensor) -> None:
        if node.view_src is not None:
            self.state(node.view_src).n_views += 1
        for source in node.src:
            self.state(source).n_children += 1
            if source.is_input:
                self.place(source)

    def place(self, tensor: Tensor) -> None:
        state = self.state(tensor)
        if tensor.external or state.owned or tensor.view_src is not None:
            return
        state.owned = True
        if tensor.op not in IN_PLACE or not self.place_in_parent(tensor, state):
            state.offset = self.free.take(_padded(tensor.nbytes))

    def place_in_parent(self, tensor: Tensor, state: _State) -> bool:
        """Take over the bytes of a parent with the same layout whose only reader this tensor is."""
        for parent in tensor.src:
            parent_state = self.state(parent)
            if not parent_state.owned or parent.is_output or (parent.view_src and parent.view_src.is_output):
                continue
            if (parent.type, parent.ne, parent.nb) != (tensor.type, tensor.ne, tensor.nb):
                continue
            if parent_state.n_children != 1 or parent_state.n_views != 0:
                continue
            state.offset = parent_state.offset
            parent_state.owned = False
            return True
        return False

    def finish_reading(self, parent: Tensor) -> None:
        state = self.state(parent)
        state.n_children -= 1
        if state.n_children or state.n_views:
            return
        if parent.view_src is not None:
            state = self.state(parent.view_src)
            state.n_views -= 1
            if not state.n_children and not state.n_views:
                self.release(parent.view_src, state)
        else:
            self.release(parent, state)

    def release(self, tensor: Tensor, state: _State) -> None:
        if state.owned and not tensor.is_output:
            self.free.give_back(state.offset, _padded(tensor.nbytes))
            state.owned = False


def _padded(nbytes: int) -> int:
    return -(-nbytes // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT
