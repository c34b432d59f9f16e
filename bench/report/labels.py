"""Where do the names of points stand in a picture? Near them, and on no other name, point or line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

F64 = npt.NDArray[np.float64]
Point = tuple[float, float, str]
NAME, MARK, LINE, OUTSIDE, OTHERS, FAR = 10.0, 8.0, 1.0, 20.0, 6.0, 0.2  # what is bad about a place, and how bad
DISTANCES: Final = (4, 9, 15, 22)  # points of a font between a marker and its name, nearest first
SIDES: Final = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
HORIZONTAL: Final = {1: "left", 0: "center", -1: "right"}
VERTICAL: Final = {1: "bottom", 0: "center", -1: "top"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name may stand: its nearest corner or edge, points of a font from its marker's middle."""

    x: int
    y: int
    far: float

    def box(self, mark: F64, size: F64, pixels: float) -> F64:
        """What a name of this size would cover, pixels: left, bottom, right, top."""
        side = np.sign([self.x, self.y])
        low = mark + np.array([self.x, self.y]) * pixels + (side - 1) / 2 * size
        return np.concatenate([low - MARGIN, low + size + MARGIN])


PLACES: Final = tuple(
    Place(x * distance, y * distance, FAR * (len(SIDES) * i + j))
    for i, distance in enumerate(DISTANCES)
    for j, (x, y) in enumerate(SIDES)
)
MARKER: Final = 4.5  # pixels from a marker's middle to its edge
MARGIN: Final = 1.5  # pixels that stay free around a name


def name_points(axes: "Axes", points: Sequence[Point], lines: Iterable[Sequence[Point]], *, font_size: float) -> None:
    """Write each point's name where it is least in the way; call it when all else is drawn, limits included.

    Args:
        axes: where.
        points: x, y and name, in the axes' own units.
        lines: what is drawn through which points.
        font_size: points.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()  # where everything is, is known then
    marks = np.array([axes.transData.transform((x, y)) for x, y, _ in points])
    strokes = np.concatenate([*(_along(axes, line) for line in lines), np.empty((0, 2))])
    area = axes.get_window_extent()
    inside = np.array([area.x0, area.y0, area.x1, area.y1])
    pixels = figure.dpi / 72  # of a font's point
    taken: list[F64] = []
    for (x, y, name), mark in zip(points, marks, strict=True):
        label = axes.annotate(name, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=font_size)
        extent = label.get_window_extent()
        size = np.array([extent.width, extent.height])

        def badness(place: Place, size: F64 = size, mark: F64 = mark) -> float:
            box = place.box(mark, size, pixels)
            return (
                place.far
                + NAME * sum(_meet(box, other) for other in taken)
                + MARK * _within(marks, box, MARKER)
                + LINE * _within(strokes, box, 0)
                + OTHERS * _is_others(marks, box, mark)
                + OUTSIDE * bool((box[:2] < inside[:2]).any() or (box[2:] > inside[2:]).any())
            )

        best = min(PLACES, key=badness)
        taken.append(best.box(mark, size, pixels))
        label.set(position=(best.x, best.y), ha=HORIZONTAL[np.sign(best.x)], va=VERTICAL[np.sign(best.y)])


def _along(axes: "Axes", line: Sequence[Point]) -> F64:
    """Places on a line, pixels: some of each stroke."""
    at = np.array([axes.transData.transform((x, y)) for x, y, _ in line])
    share = np.linspace(0, 1, 60)[:, None, None]
    return (at[:-1] * (1 - share) + at[1:] * share).reshape(-1, 2)


def _meet(one: F64, other: F64) -> bool:
    return bool((one[:2] < other[2:]).all() and (other[:2] < one[2:]).all())


def _within(places: F64, box: F64, around: float) -> int:
    """How many places a box covers, or touches."""
    return int(((places > box[:2] - around) & (places < box[2:] + around)).all(axis=1).sum())


def _is_others(marks: F64, box: F64, mark: F64) -> bool:
    """Is a name nearer to another marker than to its own?"""
    away = np.maximum(np.maximum(box[:2] - marks, marks - box[2:]), 0)
    own = np.maximum(np.maximum(box[:2] - mark, mark - box[2:]), 0)
    return bool((away**2).sum(axis=1).min() < (own**2).sum())
