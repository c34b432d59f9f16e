"""How large must the compute buffer be? A simulation of ggml's graph allocator, which lays tensors over each other.

`lifetimes` says when which stretches of the buffer are taken and given back, `lay_out` where they lie, with the sizes
they have at one point. The buffer's size is the highest end that was ever in use.

Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_dyn_tallocr_alloc, ggml_dyn_tallocr_free_bytes.
"""

from collections.abc import Sequence
from operator import add
from typing import Final, TypeAlias

from ggufphys.frozen import dataclass
from ggufphys.graph.affine import Point, at
from ggufphys.graph.allocating.chunks import Chunks, ChunkState
from ggufphys.graph.allocating.free_list import OPEN_END, FreeList, FreeState
from ggufphys.graph.allocating.lifetimes import Lifetimes, lifetimes
from ggufphys.graph.ir import Graph

_State: TypeAlias = tuple[tuple[int, ...], FreeState | ChunkState]

TENSOR_ALIGNMENT: Final = 32  # ggml-impl.h; the CPU buffer type's alignment


@dataclass(frozen=True, slots=True)
class Course:
    """What happens to a buffer, one segment of `lifetimes` after the other, some of them many times.

    `leafs` are the stretches that are taken first; those of constants come as often as the segments that they are of.
    `constants` says for each of `segments` which of `leafs` its own are, by their positions.
    """

    lifetimes: Lifetimes
    segments: tuple[int, ...]
    leafs: tuple[int, ...]
    constants: tuple[tuple[int, ...], ...]


def in_order(lifetimes: Lifetimes) -> Course:
    """Each segment once."""
    return Course(
        lifetimes,
        tuple(range(len(lifetimes.segments))),
        tuple(range(lifetimes.n_leafs)),
        tuple(segment.constants for segment in lifetimes.segments),
    )


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where stretches of the buffer begin: `stretches` says which, by their numbers in `lifetimes`.

    A segment that comes again in the same state of the buffer is the same again, and is here once. The buffer may be
    made of several, of `chunk_bytes`.
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
    allocation = _lay_out(course, alignment, point, FreeList())
    if allocation.buffer_bytes < chunk_bytes:  # all found room in front of the first one's end
        return allocation
    return _lay_out(course, alignment, point, Chunks(chunk_bytes))


def _lay_out(course: Course, alignment: int, point: Point, free: FreeList | Chunks) -> Allocation:
    lifetimes = course.lifetimes
    segments, sizes = lifetimes.segments, padded_sizes(lifetimes, alignment, point)
    take, give_back = free.take, free.give_back
    at_first = [take(sizes[leaf]) for leaf in course.leafs]
    starts = [0] * len(sizes)  # of each stretch the last that was taken
    for leaf, start in zip(course.leafs, at_first, strict=True):
        starts[leaf] = start
    placed, offsets = list(course.leafs), at_first[:]
    # What decides the layout of everything that follows: where those in use lie, and the free stretches.
    states: dict[_State, int] = {}
    kept: list[_State] = []
    following: dict[tuple[int, int], int] = {}
    state, at_hand = -1, -1  # the state at hand is that of `free`
    for number, constants in zip(course.segments, course.constants, strict=True):
        again = following.get((number, state))
        if again is not None:
            state = again
            continue
        segment = segments[number]
        if state >= 0:
            held, free_then = kept[state]
            if state != at_hand:
                free.state = free_then
            for stretch, start in zip(segment.held, held, strict=True):
                starts[stretch] = start
        for stretch, i in zip(segment.constants, constants, strict=True):
            starts[stretch] = at_first[i]
        for event in segment.events:
            if event >= 0:
                starts[event] = take(sizes[event])
            else:
                give_back(starts[~event], sizes[~event])
        placed += segment.taken
        offsets += starts[segment.taken.start : segment.taken.stop]
        if number + 1 < len(segments):
            left = tuple([starts[stretch] for stretch in segments[number + 1].held]), free.state
            at_hand = states.setdefault(left, len(kept))
            if at_hand == len(kept):
                kept.append(left)
            if not constants:
                following[number, state] = at_hand
            state = at_hand
    return Allocation(free.chunk_sizes, lifetimes, tuple(placed), tuple(offsets))


def padded_sizes(lifetimes: Lifetimes, alignment: int = TENSOR_ALIGNMENT, point: Point = ()) -> list[int]:
    """Bytes of each stretch at `point`."""
    return [-(-(size if type(size) is int else at(size, point)) // alignment) * alignment for size in lifetimes.sizes]


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
