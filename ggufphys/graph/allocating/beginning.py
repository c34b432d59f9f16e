"""How far is a layout the same at every point? Until a stretch is given back that is not always as long.

Such stretches are inputs, a mask in a longer context, and their copies on devices. Where none of the free stretches has
room for one it goes behind all others: what is put behind it later is moved when it is longer, and nothing else. Which
free stretch fits best, and which touch, is the same.
"""

from collections.abc import Iterable, Sequence
from operator import add
from typing import Final, cast

from ggufphys.graph.affine import Point, at
from ggufphys.graph.allocating.course import Course, Walk, padded_sizes
from ggufphys.graph.allocating.free_list import OPEN_END, FreeList, FreeState

_ENDLESS: Final = OPEN_END // 2  # more than any stretch but the open end has


class Beginning:
    """The part of a course in front of segment `stop`, laid out at one point: the one where it is made.

    `varying` are the stretches whose sizes depend on the point.
    """

    def __init__(self, course: Course, alignment: int, point: Point) -> None:
        self.course, self.alignment = course, alignment
        self.varying = [i for i, size in enumerate(course.lifetimes.sizes) if type(size) is not int]
        self.stop = _until_given_back(course, self.varying)
        sizes = padded_sizes(course.lifetimes, alignment, point)
        for i in self.varying:
            sizes[i] = _Varying(sizes[i])
        free = _Watched()
        self.walk = Walk(course, sizes, free)
        self.walk.begin()
        self.walk.run(0, self.stop)
        varying = {*self.varying}
        taken = (position for position, stretch in enumerate(self.walk.stretches) if stretch in varying)
        self.taken = list(zip(taken, free.largest, strict=True))

    def resumed(self, point: Point) -> Walk | None:
        """The walk so far at any point, to go on from there; None if it would be another."""
        walk, sizes = self.walk, self.walk.sizes[:]
        for i in self.varying:
            sizes[i] = -(-at(self.course.lifetimes.sizes[i], point) // self.alignment) * self.alignment
        shifts = []
        for position, largest in self.taken:
            stretch = walk.stretches[position]
            if sizes[stretch] != walk.sizes[stretch]:
                if min(sizes[stretch], walk.sizes[stretch]) <= largest:
                    return None
                shifts.append((position, walk.offsets[position], sizes[stretch] - walk.sizes[stretch]))
        return _moved(walk, sizes, shifts[::-1])


class _Varying(int):
    """A size that is another one at another point."""


class _Watched(FreeList):
    """Keeps how large the largest stretch in front of the open end was whenever a varying one was taken.

    Where an empty one may lie behind the open end, that is as good as any.
    """

    __slots__ = ("empty", "largest")

    def __init__(self) -> None:
        super().__init__()
        self.empty = 0  # where the last empty one lies
        self.largest: list[int] = []

    def take(self, size: int) -> int:
        largest = max(self.sizes[:-1], default=0) if type(size) is _Varying else -1
        offset = super().take(size)
        if not size:
            self.empty = max(self.empty, offset)
        if largest >= 0:
            self.largest.append(largest if self.empty <= offset else OPEN_END)
        return offset


def _until_given_back(course: Course, varying: Iterable[int]) -> int:
    """How many of a course's segments give none of these stretches back, and take none that they took before."""
    back, taken = {~stretch for stretch in varying}, set[int]()
    for i, number in enumerate(course.segments):
        segment = course.lifetimes.segments[number]
        again = taken.intersection(segment.taken)
        if again or not back.isdisjoint(segment.events):
            return i
        taken.update(stretch for stretch in segment.taken if ~stretch in back)
    return len(course.segments)


def _moved(walk: Walk, sizes: list[int], shifts: Sequence[tuple[int, int, int]]) -> Walk:
    """A copy of the walk in which what came behind some of the stretches is moved.

    Of these, the last first, `shifts` has the position in the walk, the offset, and by how much they are longer.
    """

    def moved(offsets: Sequence[int]) -> list[int]:
        for _, behind, by in shifts:
            offsets = [offset + by if offset > behind else offset for offset in offsets]
        return list(offsets)

    def moved_free(state: object) -> FreeState:
        offsets, sizes = cast(FreeState, state)
        offsets = tuple(moved(offsets))
        ends = zip(offsets, sizes, strict=True)
        return offsets, tuple(OPEN_END - offset if size > _ENDLESS else size for offset, size in ends)

    free = FreeList()
    copy = Walk(walk.course, sizes, free)
    copy.stretches, copy.offsets = walk.stretches[:], walk.offsets[:]
    for position, behind, by in shifts:  # what came before it has been where it was
        later = copy.offsets[position + 1 :]
        copy.offsets[position + 1 :] = [offset + by if offset > behind else offset for offset in later]
    copy.at_first, copy.starts = copy.offsets[: len(walk.at_first)], moved(walk.starts)
    free.state = moved_free(walk.free.state)
    free.max_end = max(map(add, copy.offsets, map(sizes.__getitem__, copy.stretches)), default=0)
    if walk.left is not None:
        copy.left = tuple(moved(walk.left[0])), moved_free(walk.left[1])
    return copy
