"""A measurement as a text table, as JSON, and as a picture; nothing is computed here but ratios for the reader."""

from collections import Counter
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.pictures import elided
from ggufphys.errors import MissingExtraError, with_extra
from ggufphys.machine.output import whole_file
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.report.speed import format_rate
from ggufphys.units import format_mib

if TYPE_CHECKING:
    from bench.measure.measurement import Measurement, Row
    from bench.measure.speed import SpeedRow
    from ggufphys import MemoryPrediction

PLOT_SUFFIXES: Final = (".png", ".svg")
# matplotlib's own cycle without its grey, which is the measured bars'.
COLORS: Final = tuple(f"C{i}" for i in range(10) if i != 7)
THIN: Final = 0.02  # of the process: a part that gets no colour of its own


def as_text(result: "Measurement") -> str:
    """Phases, rows and speed as tables."""
    phases = [
        (
            phase.name,
            *(
                "?" if nbytes is None else format_mib(nbytes)
                for nbytes in (
                    phase.memory.rss_bytes,
                    phase.memory.anon_bytes,
                    phase.memory.file_bytes,
                    phase.memory.swap_bytes,
                    phase.memory.peak_bytes,
                )
            ),
        )
        for phase in result.child.phases
    ]
    rows = [
        (
            row.quantity,
            _mib(row.predicted),
            _mib(row.measured),
            _difference(row),
            _percent(row),
            row.source,
        )
        for row in result.rows
    ]
    lines = [
        result.heading,
        "",
        *table(("after", "RSS MiB", "anon", "file", "swap", "peak"), phases, right=(1, 2, 3, 4, 5)),
        "",
        *table(
            ("quantity", "predicted MiB", "measured MiB", "difference B", "%", "measured by"),
            rows,
            right=(1, 2, 3, 4),
        ),
    ]
    if result.speed_rows:
        cells = [_speed_cells(row) for row in result.speed_rows]
        heads = ("quantity", "predicted tokens/s", "range", "measured", "quartiles", "%", "busy")
        lines += ["", *table(heads, cells, right=(1, 3, 5, 6))]
        if result.no_speed:
            lines.append(f"no prediction of speed: {result.no_speed}")
    return "\n".join(lines)


def _difference(row: "Row") -> str:
    """Bytes; where two figures that read differently are equal as far as the log's decimals go, how far that is."""
    if row.difference is None:
        return "?"
    if row.difference:
        return f"{row.difference:+,}"
    return "0" if _mib(row.predicted) == _mib(row.measured) else f"0 ±{row.resolution_bytes:,}"


def as_json(result: "Measurement") -> str:
    """The measurement as one JSON document."""
    return dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "model": str(result.path),
            "engine": result.engine,
            "params": {"as": result.params.run_as, **asdict(result.params)},
            "rows": [
                *({**asdict(row), "difference": row.difference} for row in result.rows),
                *({**asdict(row), "difference": row.difference} for row in result.speed_rows),
            ],
            "buffers": [asdict(buffer) for buffer in result.buffers],
            "phases": [{"name": phase.name, **asdict(phase.memory)} for phase in result.child.phases],
            "speed": speed_json(result),
            "child": {
                "exit": result.child.exit,
                "retries": result.retries,
                "failed_in": result.child.failed_in,
                "error": result.child.error,
            },
            "holds": result.holds,
            "notes": list(result.notes),
        }
    )


def _speed_cells(row: "SpeedRow") -> tuple[str, ...]:
    predicted, low, high = row.predicted, row.predicted_low, row.predicted_high
    known = predicted is not None and low is not None and high is not None
    return (
        row.quantity,
        format_rate(predicted) if known and predicted else "?",
        f"{format_rate(low)} to {format_rate(high)}" if known and low and high else "",
        format_rate(row.measured),
        f"{format_rate(row.measured_low)} to {format_rate(row.measured_high)}" if row.n > 1 else "",
        f"{100 * (predicted / row.measured - 1):+.1f}" if known and predicted else "?",
        f"{row.busy:.0%}",
    )


def speed_json(result: "Measurement") -> dict[str, Any] | None:
    """Tokens a second; None when the child did not get that far."""
    prefill, decode = result.child.phase("prefill"), result.child.phase("decode")
    if prefill is None or decode is None:
        return None
    n_prompt, n_predict = prefill.facts["n_tokens"], decode.facts["n_tokens"]
    return {
        "n_prompt": n_prompt,
        "n_predict": n_predict,
        "prefill_tok_per_s": n_prompt / prefill.facts["seconds"],
        "decode_tok_per_s": n_predict / decode.facts["seconds"] if n_predict else None,
    }


def require_plot(path: Path) -> None:
    """Check before the run that the picture can be drawn.

    Raises:
        ValueError: a suffix other than .png and .svg, or no such folder.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise ValueError(f"--plot {path}: expected a name ending in {' or '.join(PLOT_SUFFIXES)}")
    if not path.parent.is_dir():
        raise ValueError(f"--plot {path}: there is no folder {path.parent}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"--plot needs matplotlib ({error}): {with_extra('all')}") from error


def plot(result: "Measurement", path: Path) -> None:
    """Stacked bars: what was predicted for the process, and what each phase held."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots()
    bottom = 0.0
    for (name, nbytes), color in zip(_parts(result.prediction), cycle(COLORS), strict=False):
        height = nbytes / (1 << 20)
        axes.bar("predicted", height, bottom=bottom, label=elided(name), color=color)
        bottom += height
    for index, phase in enumerate(result.child.phases):
        label = {"label": "measured: anonymous"} if index == 0 else {}
        anon = (phase.memory.anon_bytes or phase.memory.rss_bytes) / (1 << 20)
        axes.bar(phase.name, anon, color="0.35", **label)
        label = {"label": "measured: file-backed"} if index == 0 else {}
        axes.bar(phase.name, (phase.memory.file_bytes or 0) / (1 << 20), bottom=anon, color="0.7", **label)
    axes.set_ylabel("resident memory, MiB")
    axes.set_title(f"{elided(result.path.name)}: predicted, and measured after each phase")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150)


def _parts(prediction: "MemoryPrediction | None") -> list[tuple[str, int]]:
    """The process's terms by name, largest first; the thin ones, which nobody could tell apart, as one."""
    by_name: Counter[str] = Counter()
    for term in prediction.terms if prediction else ():
        if term.quantity == "process":
            by_name[term.name] += term.nbytes
    thick = [(name, nbytes) for name, nbytes in by_name.most_common() if nbytes >= by_name.total() * THIN]
    n_thin = len(by_name) - len(thick)
    rest = by_name.total() - sum(nbytes for _, nbytes in thick)
    return [*thick, (f"{n_thin} smaller terms", rest)] if n_thin else thick


def _mib(nbytes: int | None) -> str:
    return "?" if nbytes is None else format_mib(nbytes)


def _percent(row: "Row") -> str:
    if row.difference is None or not row.measured:
        return "?"
    return f"{100 * row.difference / row.measured:+.2f}" if row.difference else "0"
