"""How far is a layout the same at every point? Until a stretch is taken or given back that is not always as long.

Only inputs that lie there from the start are longer then, a mask in a longer context: what lies behind one is moved by
as much, whatever is put in front of it and behind it. Which free stretch fits best, and which touch, is the same.
"""

from collections.abc import Sequence
from typing import cast

from ggufphys.graph.affine import Point, at
from ggufphys.graph.allocating.course import Course, padded_sizes
from ggufphys.graph.allocating.free_list import OPEN_END, FreeList, FreeState
from ggufphys.graph.allocating.walk import Walk


class Beginning:
    """The part of a course in front of segment `stop`, laid out at one point: the one where it is made."""

    def __init__(self, course: Course, alignment: int, point: Point) -> None:
        self.course, self.alignment = course, alignment
        sizes, segments = course.lifetimes.sizes, course.lifetimes.segments
        self.varying = [i for i, size in enumerate(sizes) if type(size) is not int]
        varying = {*self.varying, *(~i for i in self.varying)}
        self.stop = next(
            (i for i, number in enumerate(course.segments) if not varying.isdisjoint(segments[number].events)),
            len(course.segments),
        )
        self.walk = self.begun(padded_sizes(course.lifetimes, alignment, point))
        self.inputs = [
            (start, leaf) for start, leaf in zip(self.walk.at_first, course.leafs, strict=True) if leaf in varying
        ]

    def resumed(self, point: Point) -> Walk:
        """The walk so far at any point, to go on from there."""
        sizes = self.walk.sizes[:]
        for i in self.varying:
            sizes[i] = -(-at(self.course.lifetimes.sizes[i], point) // self.alignment) * self.alignment
        if not all(sizes[leaf] and self.walk.sizes[leaf] for _, leaf in self.inputs):
            return self.begun(sizes)  # what has no bytes does not tell what is in front of it from what is behind
        shifts = [(start, sizes[leaf] - self.walk.sizes[leaf]) for start, leaf in reversed(self.inputs)]
        return _moved(self.walk, sizes, [(start, by) for start, by in shifts if by])

    def begun(self, sizes: list[int]) -> Walk:
        """The walk so far with these sizes."""
        walk = Walk(self.course, sizes, FreeList())
        walk.begin()
        walk.run(0, self.stop)
        return walk


def _moved(walk: Walk, sizes: list[int], shifts: Sequence[tuple[int, int]]) -> Walk:
    """A copy of the walk in which what lies behind each of these offsets, the largest first, is shifted by so much."""

    def moved(offsets: Sequence[int]) -> list[int]:
        for behind, by in shifts:
            offsets = [offset + by if offset > behind else offset for offset in offsets]
        return list(offsets)

    def moved_free(state: object) -> FreeState:
        offsets, sizes = cast(FreeState, state)
        offsets = tuple(moved(offsets))
        return offsets, (*sizes[:-1], OPEN_END - offsets[-1])

    free = FreeList()
    free.state, (free.max_end,) = moved_free(walk.free.state), moved(walk.free.chunk_sizes or (0,))
    copy = Walk(walk.course, sizes, free)
    copy.stretches = walk.stretches[:]
    copy.at_first, copy.starts, copy.offsets = map(moved, (walk.at_first, walk.starts, walk.offsets))
    if walk.left is not None:
        copy.left = tuple(moved(walk.left[0])), moved_free(walk.left[1])
    return copy
