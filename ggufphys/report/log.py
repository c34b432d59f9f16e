"""The report on a log: each buffer line beside its prediction, as a text table or JSON."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ggufphys.frozen import asdict
from ggufphys.gguf import GGUFFile
from ggufphys.plan.reconcile import Line, Reconciliation
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.units import format_mib

_HEADER = ("buffer", "predicted MiB", "logged MiB", "difference", "basis", "verdict", "")


def log_text(gguf: GGUFFile, result: Reconciliation) -> str:
    """What was run and how that is known, the comparison, and a summary."""
    counts = Counter(line.verdict for line in result.lines)
    summary = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    return "\n".join(
        [
            f"{gguf.name}: {gguf.architecture}, as {result.run.path or 'the model'} was run according to the log",
            *_parameter_lines(result),
            "",
            *table(_HEADER, [_cells(line) for line in result.lines], right=(1, 2, 3)),
            "",
            f"{'reconciled' if result.holds else 'does not reconcile'}: {summary}",
            *(f"note: {note}" for note in result.notes),
        ]
    )


def log_json(gguf: GGUFFile, result: Reconciliation) -> str:
    """The comparison as one document; `reconciled` is what the exit code says."""
    return dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "model": {"path": gguf.location, "architecture": gguf.architecture, "name": gguf.name},
            "log": {"path": result.run.path, "n_tensors": result.run.n_tensors, "build": result.run.build},
            "params": {name: {"value": value, "source": source} for name, value, source in _parameters(result)},
            "rows": [{**asdict(line), "difference": line.difference, "verdict": line.verdict} for line in result.lines],
            "reconciled": result.holds,
            "notes": list(result.notes),
        }
    )


def _parameters(result: Reconciliation) -> Iterator[tuple[str, Any, str]]:
    for name, source in result.sources.items():
        value = getattr(result.params, name)
        yield name, [d.name for d in value] if name == "devices" else value, source


def _parameter_lines(result: Reconciliation) -> Iterator[str]:
    """One line a source: what the log says, what flags say instead, what is assumed."""
    groups: dict[str, list[str]] = {}
    for name, value, source in _parameters(result):
        kind, _, detail = source.partition(" (")
        detail = detail.removesuffix(")")
        if kind == "assumed":
            text = f"{name} {detail}"
        else:
            text = f"{name} {_value(value)}" + (f" ({detail})" if detail else "")
        groups.setdefault(kind, []).append(text)
    for kind in ("log", "flag", "assumed"):
        if kind in groups:
            yield f"{kind}: {', '.join(groups[kind])}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, tuple):
        return f"of {len(value)}"
    return str(value)


def _cells(line: Line) -> tuple[str, ...]:
    return (
        line.name,
        "" if line.predicted is None else format_mib(line.predicted),
        "" if line.logged is None else format_mib(line.logged),
        _difference(line),
        line.basis or "",
        line.verdict,
        line.reason,
    )


def _difference(line: Line) -> str:
    """MiB; where two figures that read differently are equal as far as the log's decimals go, how far that is."""
    if line.difference is None or line.predicted is None or line.logged is None:
        return ""
    same = line.difference or format_mib(line.predicted) == format_mib(line.logged)
    return format_mib(line.difference) + ("" if same else f" ±{format_mib(line.resolution_bytes)}")
