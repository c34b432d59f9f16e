"""The answer to `inspect --sweep`: a table, CSV with whole bytes, or JSON."""

from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Final

from ggufphys.frozen import asdict
from ggufphys.gguf import GGUFFile
from ggufphys.plan.sweep import Axis, Point, Value
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, model_lines, table
from ggufphys.report.inspection_json import model_json
from ggufphys.units import counted, format_mib

_BYTES: Final = ("model_bytes", "context_bytes", "compute_bytes", "output_bytes", "total_bytes", "process_bytes")
_HEADER: Final = ("model", "context", "compute", "output", "buffers", "process")


def sweep_text(gguf: GGUFFile, axes: Sequence[Axis], points: Sequence[Point], notes: Sequence[str] = ()) -> str:
    """A row a point, MiB; with devices, all of each device's buffers stand behind the totals."""
    devices = _device_names(points)
    rows = [
        (
            *(value_text(point.values[axis.name]) for axis in axes),
            *(_mib(getattr(point, name)) for name in _BYTES),
            *(format_mib(device.total_bytes) for device in point.devices if device.name in devices),
            *("" for _ in devices if not point.devices),
        )
        for point in points
    ]
    header = (*(axis.name for axis in axes), *_HEADER, *devices)
    lines = [*model_lines(gguf), "", *table(header, rows, right=range(len(header)))]
    why = dict.fromkeys(point.refused for point in points if point.refused)
    return "\n".join(
        [
            *lines,
            "",
            f"{counted(len(points), 'point')}; memory in MiB; buffers: all of llama.cpp's{_estimates(points)}",
            *(f"refused: {reason}" for reason in why),
            *_lengths(axes, points),
            *(f"note: {note}" for note in notes),
        ]
    )


def _lengths(axes: Sequence[Axis], points: Sequence[Point]) -> Iterator[str]:
    """Where rows differ in the length of the context, too, which is neither a column nor asked for."""
    found = sorted({point.n_ctx for point in points if point.n_ctx is not None})
    if len(found) > 1 and all(axis.name != "n_ctx" for axis in axes):
        yield (
            f"note: n_ctx is {found[0]:,} to {found[-1]:,}, what each run has room for or was trained for: "
            "-c N gives all the same"
        )


def sweep_csv(axes: Sequence[Axis], points: Sequence[Point]) -> str:
    """The points as CSV, sizes in bytes, with a header line; without a line break at the end."""
    import csv  # what other reports do not need

    devices = _device_names(points)
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*(axis.name for axis in axes), *_BYTES, *(f"{name}_bytes" for name in devices), "refused"))
    for point in points:
        totals = {device.name: device.total_bytes for device in point.devices}
        writer.writerow(
            (
                *(value_text(point.values[axis.name]) for axis in axes),
                *(getattr(point, name) for name in _BYTES),
                *(totals.get(name) for name in devices),
                point.refused,
            )
        )
    return text.getvalue().rstrip("\n")


def sweep_json(gguf: GGUFFile, axes: Sequence[Axis], points: Sequence[Point], notes: Sequence[str] = ()) -> str:
    """One document; bytes are null where llama.cpp would refuse, with its reason."""
    return dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "model": model_json(gguf),
            "sweep": {axis.name: list(axis.values) for axis in axes},
            "points": [asdict(point) for point in points],
            "notes": list(notes),
        }
    )


def value_text(value: Value) -> str:
    """A parameter's value as a flag would have it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _device_names(points: Sequence[Point]) -> tuple[str, ...]:
    """The devices beside the host, if any; then the host too."""
    names = tuple(dict.fromkeys(device.name for point in points for device in point.devices))
    return names if len(names) > 1 else ()


def _estimates(points: Sequence[Point]) -> str:
    """Which of the columns are no exact figures."""
    bases = next((point.basis for point in points if point.basis), {})
    estimates = [quantity for quantity, basis in bases.items() if basis != "exact"]
    return f"; estimates: {', '.join(estimates)}" if estimates else ""


def _mib(nbytes: int | None) -> str:
    return "refused" if nbytes is None else format_mib(nbytes)
