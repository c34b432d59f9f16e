"""How large must the compute buffer be? A simulation of ggml's graph allocator, which lays tensors over each other.

`lifetimes` says when which stretches of the buffer are taken and given back, `lay_out` where they lie, with the sizes
they have at one point. The buffer's size is the highest end that was ever in use.

Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_dyn_tallocr_alloc, ggml_dyn_tallocr_free_bytes.
"""

from collections.abc import Sequence
from operator import add
from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.graph.affine import Point, at
from ggufphys.graph.allocating.course import Course, Walk, in_order, padded_sizes
from ggufphys.graph.allocating.free_list import OPEN_END, FreeList
from ggufphys.graph.allocating.lifetimes import Lifetimes, lifetimes
from ggufphys.graph.ir import Graph

TENSOR_ALIGNMENT: Final = 32  # ggml-impl.h; the CPU buffer type's alignment


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where stretches of the buffer begin: `stretches` says which, by their numbers in `lifetimes`.

    A segment that comes again in the same state of the buffer is the same again, and need not be here again. The buffer
    may be made of several, of `chunk_bytes`.
    """

    chunk_bytes: tuple[int, ...]
    lifetimes: Lifetimes
    stretches: tuple[int, ...]
    starts: tuple[int, ...]

    @property
    def buffer_bytes(self) -> int:
        """Bytes of all chunks."""
        return sum(self.chunk_bytes)

    @property
    def offsets(self) -> tuple[int | None, ...]:
        """Where each tensor lies, in the order of the graph's leafs and nodes; None for views and weights.

        Only of a graph that stands for itself.
        """
        starts = dict(zip(self.stretches, self.starts, strict=True))
        return tuple(None if place is None else starts[place] for place in self.lifetimes.places)

    def touched_bytes(self, written: Sequence[int]) -> int:
        """Bytes that lie in at least one of the stretches, where so many are written of each."""
        touched = end = 0
        sizes = map(written.__getitem__, self.stretches)
        for start, stop in sorted(zip(self.starts, map(add, self.starts, sizes), strict=True)):
            if stop > end:
                touched += stop - (start if start > end else end)
                end = stop
        return touched


def allocate(graph: Graph, alignment: int = TENSOR_ALIGNMENT) -> Allocation:
    """Lay out the graph's tensors as ggml would; `alignment` is what the backend pads each of them to."""
    return lay_out(in_order(lifetimes(graph)), alignment)


def lay_out(
    course: Course, alignment: int = TENSOR_ALIGNMENT, point: Point = (), chunk_bytes: int = OPEN_END
) -> Allocation:
    """Put each stretch where ggml's allocator would, with the sizes they have at `point`.

    What does not fit into a buffer of `chunk_bytes` is laid into several.
    """
    walk = _walked(course, alignment, point)
    if sum(walk.free.chunk_sizes) >= chunk_bytes:  # not all found room in front of the first chunk's end
        from ggufphys.graph.allocating.chunks import Chunks  # what few buffers need

        walk = Walk(course, padded_sizes(course.lifetimes, alignment, point), Chunks(chunk_bytes))
        walk.begin()
        walk.run()
    return Allocation(walk.free.chunk_sizes, course.lifetimes, tuple(walk.stretches), tuple(walk.offsets))


def _walked(course: Course, alignment: int, point: Point) -> Walk:
    """The walk through all of a course. The first is made whole; from the second point on a beginning is kept."""
    if alignment not in course.beginnings:
        course.beginnings[alignment] = None
        walk = Walk(course, padded_sizes(course.lifetimes, alignment, point), FreeList())
        walk.begin()
        walk.run()
        return walk
    from ggufphys.graph.allocating.beginning import Beginning  # what one context does not need

    beginning: Beginning | None = course.beginnings[alignment]
    resumed = None if beginning is None else beginning.resumed(point)
    if beginning is None or resumed is None:
        beginning = course.beginnings[alignment] = Beginning(course, alignment, point)
        resumed = beginning.resumed(point)
        assert resumed is not None, "it begins like that at the point where it is made"
    resumed.run(beginning.stop)
    return resumed


def side_by_side(
    lifetimes: Lifetimes, stand_for: Sequence[int] = (), alignment: int = TENSOR_ALIGNMENT, point: Point = ()
) -> int:
    """Bytes of all stretches, none over another: what no layout exceeds.

    Each layer that was built stands for so many others of its kind. Such a layer is counted as what comes behind its
    kind's mark and behind the next one, since a layer's last nodes may come there; where the next one is the last, for
    which no other stands, as the most that comes between two marks. Twice that is counted for each layer where the
    graph is a part that some of the layers have no nodes in.
    """
    sizes = padded_sizes(lifetimes, alignment, point)
    n_bytes = sum(sizes)
    if not any(stand_for):
        return n_bytes
    between = [sum(sizes[s.taken.start : s.taken.stop]) for s in lifetimes.segments[1:-1]]
    most = max(between, default=0)
    if len(between) + 1 != len(stand_for):
        return n_bytes + 2 * sum(stand_for) * most
    for n, own, following in zip(stand_for, between, (*between[1:], most), strict=False):
        n_bytes += n * (own + following)
    return n_bytes


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
