"""How large must the compute buffer be? A simulation of ggml's graph allocator, which lays tensors over each other.

`lifetimes` says when which stretches of the buffer are taken and given back, `lay_out` where they lie, with the sizes
they have at one point. The buffer's size is the highest end that was ever in use.

Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_dyn_tallocr_alloc, ggml_dyn_tallocr_free_bytes.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import add
from typing import Final, TypeAlias

from ggufphys.frozen import dataclass
from ggufphys.graph.affine import Point, at, has_steps
from ggufphys.graph.allocating.course import Course, Walk, in_order, padded, padded_sizes
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


class SideBySide:
    """All stretches of a buffer, none over another: what no layout exceeds.

    Each layer that was built stands for so many others of its kind. Such a layer is counted as what comes behind its
    kind's mark and behind the next one, since a layer's last nodes may come there; where the next one is the last, for
    which no other stands, as the most that comes between two marks. Twice that is counted for each layer where the
    graph is a part that some of the layers have no nodes in.
    """

    __slots__ = ("_alignment", "_all", "_between", "_n_most")

    def __init__(self, lifetimes: Lifetimes, stand_for: Sequence[int], alignment: int) -> None:
        between = [segment.taken for segment in lifetimes.segments[1:-1]]
        times = [1] * len(lifetimes.sizes)
        n_most = 0
        if len(between) + 1 != len(stand_for):
            n_most = 2 * sum(stand_for)
        else:
            for i, n in enumerate(stand_for[: len(between)]):
                for stretch in chain.from_iterable(between[i : i + 2]):
                    times[stretch] += n
            n_most = stand_for[len(between) - 1] if between else 0
        self._alignment, self._n_most = alignment, n_most
        self._all = _summed(zip(lifetimes.sizes, times, strict=True), alignment)
        self._between = [
            _summed(((size, 1) for size in lifetimes.sizes[taken.start : taken.stop]), alignment)
            for taken in between
            if n_most
        ]

    def at(self, point: Point) -> int:
        """The bytes of the buffer at one point."""
        most = max((self._sum(part, point) for part in self._between), default=0)
        return self._sum(self._all, point) + self._n_most * most

    def _sum(self, part: "_Summed", point: Point) -> int:
        linear, others = part
        return at(linear, point) + sum(n * padded(at(size, point), self._alignment) for size, n in others)


_Summed: TypeAlias = tuple[int, list[tuple[int, int]]]
"""A sum of padded sizes as one number, as far as it is affine; and the other sizes, each so many times."""


def _summed(sizes: Iterable[tuple[int, int]], alignment: int) -> _Summed:
    linear, others = 0, []
    for size, n in sizes:
        if has_steps(size, alignment):
            linear += n * padded(size, alignment)
        else:
            others.append((size, n))
    return linear, others


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
    """Bytes that are written of each stretch when the graph runs at another point, where its lifetimes hold too."""
    return [0 if i in lifetimes.unread else at(size, point) for i, size in enumerate(lifetimes.sizes)]
