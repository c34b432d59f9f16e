"""Speed as text and JSON: figures with ranges, what limits them, and what a calibration found."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ggufphys.frozen import asdict
from ggufphys.report.inspection import Section, table
from ggufphys.speed.history import Errors
from ggufphys.speed.predict import Figure, PhaseSpeed, SpeedPrediction
from ggufphys.speed.rates import Machine, ProductRate

if TYPE_CHECKING:
    from pathlib import Path


def speed_section(speed: SpeedPrediction, *, errors: Errors | None = None) -> Section:
    """What `inspect` says of speed; `errors` are how right it was before."""
    lines = [*_lines(speed), *([] if errors is None else [str(errors)])]
    value = {**speed_json(speed), "errors": None if errors is None else asdict(errors)}
    return Section(key="speed", lines=tuple(lines), value=value)


def speed_json(speed: SpeedPrediction) -> dict[str, Any]:
    """The figures, each with value, low and high."""
    decode = speed.decode
    return {
        "prefill_tok_per_s": figure_json(speed.prefill.tok_per_s),
        "decode_tok_per_s": figure_json(decode.tok_per_s if decode else None),
        "ttft_s": figure_json(speed.prefill.seconds),
        "load_s": figure_json(speed.load),
        "load_warm_s": figure_json(speed.load_warm),
        "limit": speed.limit,
        "limits": {"prefill": speed.prefill.limit, "decode": decode.limit if decode else None},
        "basis": speed.basis,
        "machine": speed.machine,
        "source": speed.source,
        "n_threads": speed.n_threads,
        "n_prompt": speed.prefill.n_tokens,
        "depth": speed.prefill.depth,
        "batch": decode.n_tokens if decode else None,
        "notes": list(speed.notes),
    }


def figure_json(figure: Figure | None) -> dict[str, float] | None:
    """A figure as JSON."""
    return None if figure is None else {"value": figure.value, "low": figure.low, "high": figure.high}


def _lines(speed: SpeedPrediction) -> Iterator[str]:
    threads = f", {speed.n_threads} thread{'s' * (speed.n_threads != 1)}" if speed.n_threads else ""
    yield f"speed on {speed.machine}{threads} ({speed.basis}: {speed.source})"
    rows = [_phase_row(f"prefill of {speed.prefill.n_tokens:,} tokens", speed.prefill)]
    if speed.decode is not None:
        n = speed.decode.n_tokens
        rows.append(_phase_row(f"decode of {n} sequence{'s' * (n > 1)}", speed.decode))
    yield from table(("", "tokens/s", "range", "limit"), rows, right=(1,))
    times = [
        ("first token after", speed.prefill.seconds),
        ("load from disk", speed.load),
        ("load, cached", speed.load_warm),
    ]
    yield ", ".join(f"{name} {format_seconds(figure.value)}" for name, figure in times if figure is not None)
    yield from (f"speed: {note}" for note in speed.notes)


def _phase_row(name: str, phase: PhaseSpeed) -> tuple[str, ...]:
    rate = phase.tok_per_s
    at = f" at depth {phase.depth:,}" if phase.depth else ""
    return f"{name}{at}", format_rate(rate.value), f"{format_rate(rate.low)} to {format_rate(rate.high)}", phase.limit


def format_rate(rate: float) -> str:
    """Tokens a second with as many digits as mean something."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def format_seconds(seconds: float) -> str:
    """`12 ms`, `1.2 s`, `95 s`."""
    if seconds < 1:
        return f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:,.0f} s"


def machine_text(machine: Machine, path: "Path | None") -> str:
    """What was measured, in a few lines and a table of kernels."""
    lines = [f"{machine.name}: {machine.source}"]
    for cpu in machine.processors:
        lines.append(
            f"{cpu.name}, {cpu.n_threads} thread{'s' * (cpu.n_threads != 1)}: {cpu.bytes_per_s / 1e9:.1f} GB/s from "
            f"main memory, {1e6 * cpu.node_s:.2f} us a node, {1e6 * cpu.step_s:.0f} us a batch"
        )
        columns = sorted({rate.n_columns for rates in cpu.products.values() for rate in rates})
        rows = [(name, *_by_columns(rates, columns)) for name, rates in cpu.products.items()]
        if rows:
            heads = ("billion weights a second", *(f"x {n}" for n in columns))
            lines += ["", *table(heads, rows, right=tuple(range(1, len(heads)))), ""]
    lines.append(f"kept in {path}" if path is not None else "not kept: there is no folder for it")
    return "\n".join(lines)


def _by_columns(rates: Sequence[ProductRate], columns: Sequence[int]) -> Iterator[str]:
    """Billion weights a second of rows of 4,096 from main memory; nothing for columns that were not measured."""
    found = {rate.n_columns: 4096 * rate.n_columns / rate.row(4096)[1] / 1e9 for rate in rates}
    yield from (f"{found[n]:.2f}" if n in found else "" for n in columns)
