"""In which order are stretches of a buffer taken and given back, with all layers, and where does each then lie?"""

from typing import TYPE_CHECKING, Any, TypeAlias

from ggufphys.frozen import dataclass, field
from ggufphys.graph.affine import Point, at
from ggufphys.graph.allocating.free_list import FreeList
from ggufphys.graph.allocating.lifetimes import Lifetimes

if TYPE_CHECKING:
    from ggufphys.graph.allocating.chunks import Chunks, ChunkState
    from ggufphys.graph.allocating.free_list import FreeState


@dataclass(frozen=True, slots=True)
class Course:
    """What happens to a buffer, one segment of `lifetimes` after the other, some of them many times.

    `leafs` are the stretches that are taken first; those of constants come as often as the segments that they are of.
    `constants` says for each of `segments` which of `leafs` its own are, by their positions. `beginnings` are what
    `alloc` keeps of layouts that it made, by their alignment: how they begin, or None behind a single one.
    """

    lifetimes: Lifetimes
    segments: tuple[int, ...]
    leafs: tuple[int, ...]
    constants: tuple[tuple[int, ...], ...]
    beginnings: dict[int, Any] = field(default_factory=dict)


def in_order(lifetimes: Lifetimes) -> Course:
    """The course that runs each segment once, in their order."""
    return Course(
        lifetimes,
        tuple(range(len(lifetimes.segments))),
        tuple(range(lifetimes.n_leafs)),
        tuple(segment.constants for segment in lifetimes.segments),
    )


def padded(size: int, alignment: int) -> int:
    """As many bytes, or the next multiple of the alignment."""
    return -(-size // alignment) * alignment


def padded_sizes(lifetimes: Lifetimes, alignment: int, point: Point) -> list[int]:
    """Bytes of each stretch at `point`."""
    return [-(-(size if type(size) is int else at(size, point)) // alignment) * alignment for size in lifetimes.sizes]


State: TypeAlias = "tuple[tuple[int, ...], FreeState | ChunkState]"
"""What decides where all that follows goes: where the stretches in use lie, and what is free."""


class Walk:
    """The run through one course. `stretches` have been put at `offsets`, in this order.

    A segment that comes again in the same state of the buffer is the same again, and is here once. `left` is the state
    behind the last segment, if another follows.
    """

    __slots__ = ("at_first", "course", "free", "left", "offsets", "sizes", "starts", "stretches")

    def __init__(self, course: Course, sizes: list[int], free: "FreeList | Chunks") -> None:
        """Of `sizes` there is one for each stretch."""
        self.course, self.sizes, self.free = course, sizes, free
        self.at_first: list[int] = []
        self.starts = [0] * len(sizes)  # of each stretch the last that was taken
        self.stretches: list[int] = []
        self.offsets: list[int] = []
        self.left: State | None = None

    def begin(self) -> None:
        """Take what is taken before the first segment."""
        leafs = self.course.leafs
        self.at_first = [self.free.take(self.sizes[leaf]) for leaf in leafs]
        for leaf, start in zip(leafs, self.at_first, strict=True):
            self.starts[leaf] = start
        self.stretches, self.offsets = list(leafs), self.at_first[:]

    def run(self, first: int = 0, stop: int | None = None) -> None:
        """Go on with some of the course's segments."""
        course, sizes, starts, free = self.course, self.sizes, self.starts, self.free
        segments, take, give_back = course.lifetimes.segments, free.take, free.give_back
        states: dict[State, int] = {}
        kept: list[State] = []
        following: dict[tuple[int, int], int] = {}
        state, at_hand = -1, -1  # the state at hand is that of `free`
        if self.left is not None:
            kept, state = [self.left], 0
        for number, constants in zip(course.segments[first:stop], course.constants[first:stop], strict=True):
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
                starts[stretch] = self.at_first[i]
            for event in segment.events:
                if event >= 0:
                    starts[event] = take(sizes[event])
                else:
                    give_back(starts[~event], sizes[~event])
            self.stretches += segment.taken
            self.offsets += starts[segment.taken.start : segment.taken.stop]
            if number + 1 < len(segments):
                left = tuple([starts[stretch] for stretch in segments[number + 1].held]), free.state
                at_hand = states.setdefault(left, len(kept))
                if at_hand == len(kept):
                    kept.append(left)
                if not constants:
                    following[number, state] = at_hand
                state = at_hand
        if state >= 0:
            self.left = kept[state]
