"""The picture of `inspect --sweep --plot`: memory over the first parameter that is a number, a line a combination."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.measure.report import require_plot as check_plot
from bench.pictures import elided
from ggufphys.machine.output import whole_file
from ggufphys.plan.sweep import Axis, Point, Value
from ggufphys.report.sweep import value_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GIB = 1 << 30
TICK: Final = 0.05  # of the axis, that two ticks are apart at least


def plot_sweep(path: Path, title: str, axes: Sequence[Axis], points: Sequence[Point]) -> None:
    """A panel for each device, with all of llama.cpp's buffers there; a dashed line is the memory that is free."""
    with whole_file(path) as partial:
        figure_of(title, axes, points).savefig(partial, dpi=150)


def figure_of(title: str, axes: Sequence[Axis], points: Sequence[Point]) -> "Figure":
    """The picture. Its scales are linear, so that what grows evenly is a straight line."""
    from matplotlib.figure import Figure

    along = _along(axes)
    others = [axis for axis in axes if axis is not along and len(axis.values) > 1]
    taken = [point for point in points if not point.refused]
    names = list(dict.fromkeys(device.name for point in taken for device in point.devices))
    figure = Figure(figsize=(1 + 6 * len(names), 4.5), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for name, panel in zip(names, panels, strict=True):
        lines = _merged(_lines(taken, others), along, name)
        for below, (label, x, y) in zip(range(len(lines) - 1, -1, -1), lines, strict=True):
            wider = below * min(2.0, 8 / len(lines))  # points: what a later line nearly covers is seen at its edges
            panel.plot(
                x if _is_number(x[0]) else [value_text(v) for v in x],
                y,
                marker="o",
                linewidth=1.5 + wider,
                markersize=4 + 1.5 * wider,
                label=label,
            )
        free = next((d.memory_bytes for p in taken for d in p.devices if d.name == name and d.memory_bytes), None)
        if free:
            panel.axhline(free / GIB, color="0.4", linestyle="--", label=f"{name}, free")
        if _is_number(along.values[0]):
            ticks = _apart(along.values)
            panel.set_xticks(ticks, [value_text(v) for v in ticks], rotation=30)
        panel.set_title(name)
        panel.set_xlabel(along.name)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        if others or free:
            panel.legend(fontsize="small")
    panels[0].set_ylabel("llama.cpp's buffers, GiB")
    figure.suptitle(elided(title))
    return figure


def _merged(
    lines: Sequence[tuple[str, Sequence[Point]]], along: Axis, device: str
) -> list[tuple[str, list[Value], list[float]]]:
    """Label, x and y of each line; lines that lie on each other are one, under what all of them are."""
    labels: dict[tuple[tuple[Value, float], ...], list[str]] = {}
    for label, line in lines:
        on_it = tuple(
            (point.values[along.name], d.total_bytes / GIB) for point in line for d in point.devices if d.name == device
        )
        if on_it:
            labels.setdefault(on_it, []).append(label)
    return [(" = ".join(same), [x for x, _ in on_it], [y for _, y in on_it]) for on_it, same in labels.items()]


def _apart(values: Sequence[Value]) -> list[int]:
    """The numbers that have room for a text below them: the largest, and each that is well below the next one."""
    numbers = sorted((value for value in values if isinstance(value, int)), reverse=True)
    kept = numbers[:1]
    for number in numbers[1:]:
        if kept[-1] - number >= TICK * (numbers[0] - numbers[-1]):
            kept.append(number)
    return kept[::-1]


def _along(axes: Sequence[Axis]) -> Axis:
    """The axis of the picture: the first of several numbers, else the first of several values, else the first."""
    several = [axis for axis in axes if len(axis.values) > 1]
    return next((axis for axis in several if _is_number(axis.values[0])), (several or list(axes))[0])


def _lines(points: Sequence[Point], others: Sequence[Axis]) -> list[tuple[str, list[Point]]]:
    """Points that differ in the axis of the picture alone, under what the others say, in their order."""

    def place(point: Point) -> tuple[int, ...]:
        return tuple(axis.values.index(point.values[axis.name]) for axis in others)

    def label(point: Point) -> str:
        return ", ".join(f"{axis.name} {value_text(point.values[axis.name])}" for axis in others)

    return [(text, list(line)) for text, line in groupby(sorted(points, key=place), key=label)]


def _is_number(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


__all__ = ["check_plot", "plot_sweep"]
