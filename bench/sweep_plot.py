"""The picture of `inspect --sweep --plot`: memory over the first parameter that is a number, a line a combination."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

from bench.measure.report import require_plot as check_plot
from ggufphys.plan.sweep import Axis, Point, Value
from ggufphys.report.sweep import value_text

GIB = 1 << 30


def plot_sweep(path: Path, title: str, axes: Sequence[Axis], points: Sequence[Point]) -> None:
    """A panel for each device, with all of llama.cpp's buffers there; a dashed line is the memory that is free."""
    from matplotlib.figure import Figure

    along = _along(axes)
    others = [axis for axis in axes if axis is not along and len(axis.values) > 1]
    taken = [point for point in points if not point.refused]
    names = list(dict.fromkeys(device.name for point in taken for device in point.devices))
    figure = Figure(figsize=(1 + 6 * len(names), 4.5), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for name, panel in zip(names, panels, strict=True):
        for label, line in _lines(taken, others):
            x = [point.values[along.name] for point in line]
            y = [device.total_bytes / GIB for point in line for device in point.devices if device.name == name]
            panel.plot(x if _is_number(x[0]) else [value_text(v) for v in x], y, marker="o", label=label)
        free = next((d.memory_bytes for p in taken for d in p.devices if d.name == name and d.memory_bytes), None)
        if free:
            panel.axhline(free / GIB, color="0.4", linestyle="--", label=f"{name}, free")
        if _is_number(along.values[0]) and _doubles(along.values):
            panel.set_xscale("log", base=2)
            panel.set_xticks(along.values, [value_text(v) for v in along.values], rotation=30)
        panel.set_title(name)
        panel.set_xlabel(along.name)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("llama.cpp's buffers, GiB")
    if others:
        panels[-1].legend(fontsize="small")
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def _along(axes: Sequence[Axis]) -> Axis:
    """The axis of the picture: the first of several numbers, else the first of several values, else the first."""
    several = [axis for axis in axes if len(axis.values) > 1]
    return next((axis for axis in several if _is_number(axis.values[0])), (several or list(axes))[0])


def _lines(points: Sequence[Point], others: Sequence[Axis]) -> list[tuple[str, list[Point]]]:
    """Points that differ in the axis of the picture alone, under what the others say."""

    def label(point: Point) -> str:
        return ", ".join(f"{axis.name} {value_text(point.values[axis.name])}" for axis in others)

    return [(text, list(line)) for text, line in groupby(sorted(points, key=label), key=label)]


def _is_number(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _doubles(values: Sequence[Value]) -> bool:
    numbers = [value for value in values if isinstance(value, int)]
    return len(numbers) > 2 and all(0 < 1.5 * a < b for a, b in pairwise(numbers))


__all__ = ["check_plot", "plot_sweep"]
