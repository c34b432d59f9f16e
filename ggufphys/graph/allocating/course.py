"""In which order are stretches of a buffer taken and given back, with all layers?"""

from typing import TYPE_CHECKING

from ggufphys.frozen import dataclass, field
from ggufphys.graph.affine import Point, at
from ggufphys.graph.allocating.lifetimes import Lifetimes

if TYPE_CHECKING:
    from ggufphys.graph.allocating.beginning import Beginning


@dataclass(frozen=True, slots=True)
class Course:
    """What happens to a buffer, one segment of `lifetimes` after the other, some of them many times.

    `leafs` are the stretches that are taken first; those of constants come as often as the segments that they are of.
    `constants` says for each of `segments` which of `leafs` its own are, by their positions. `beginnings` are those of
    layouts that were made of it, by their alignment.
    """

    lifetimes: Lifetimes
    segments: tuple[int, ...]
    leafs: tuple[int, ...]
    constants: tuple[tuple[int, ...], ...]
    beginnings: "dict[int, Beginning]" = field(default_factory=dict)


def in_order(lifetimes: Lifetimes) -> Course:
    """Each segment once."""
    return Course(
        lifetimes,
        tuple(range(len(lifetimes.segments))),
        tuple(range(lifetimes.n_leafs)),
        tuple(segment.constants for segment in lifetimes.segments),
    )


def padded_sizes(lifetimes: Lifetimes, alignment: int, point: Point) -> list[int]:
    """Bytes of each stretch at `point`."""
    return [-(-(size if type(size) is int else at(size, point)) // alignment) * alignment for size in lifetimes.sizes]
