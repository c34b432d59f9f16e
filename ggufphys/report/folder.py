"""The report on many models: a text table with a row a file, or JSON."""

from collections.abc import Sequence
from pathlib import Path

from ggufphys.frozen import asdict
from ggufphys.plan.folder import Asked, FileRow
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.report.quantized import quantized_lines
from ggufphys.units import counted, format_bytes, format_count, format_mib

_FIGURES = ("params", "size", "n_ctx", "model", "context", "compute", "total", "process")


def folder_text(rows: Sequence[FileRow], asked: Asked, folder: str = "") -> str:
    """The table, memory in MiB; paths below `folder` are shown without it."""
    stores = any(row.store for row in rows)
    first = ("of", "model") if stores else ("file",)
    verdict = () if asked.limit_bytes is None else ("needs", "fits")
    header = (*first, "architecture", "type", *_FIGURES, *verdict, "")
    cells = [
        (*((row.store,) if stores else ()), *_cells(row, folder), *(_verdict(row) if verdict else ()), row.reason)
        for row in rows
    ]
    right = range(len(first) + 2, len(first) + 2 + len(_FIGURES) + len(verdict[:1]))
    lines = table(header, cells, right=right)
    nbytes = sum(row.file_bytes or 0 for row in rows)
    lines += [
        "",
        f"{counted(len(rows), 'file')}, {format_bytes(nbytes)} on disk; memory in MiB; total: llama.cpp's "
        "buffers; process: what is resident, an estimate",
    ]
    if any(_is_estimate(row) for row in rows):
        lines.append("~ is an estimate")
    if asked.params.n_ctx == 0:
        lines.append("n_ctx: what each model takes without -c; with `-c 8k` all take the same")
    if any(row.label.startswith("ollama:") for row in rows):
        lines.append("ollama:NAME is an address for every command; --json has the paths")
    elif stores:
        lines.append("--json has the paths")
    for row in rows:
        if row.quantized:
            lines += ["", row.label or row.path, *quantized_lines(row.quantized, row.tensor_bytes or 0)]
    if asked.limit_bytes is not None:
        judged = [row.fits for row in rows if row.fits is not None]
        lines += ["", f"{sum(judged)} of {len(judged)} fit into {format_bytes(asked.limit_bytes)} of main memory"]
    return "\n".join(lines)


def _verdict(row: FileRow) -> tuple[str, str]:
    return _mib(row.needed_bytes), "" if row.fits is None else "yes" if row.fits else "no"


def folder_json(rows: Sequence[FileRow]) -> str:
    """One document; every row has every key, null where a figure is not known."""
    return dumps({"schema_version": SCHEMA_VERSION, "files": [asdict(row) for row in rows]})


def _cells(row: FileRow, folder: str) -> tuple[str, ...]:
    path = row.label or (str(Path(row.path).relative_to(folder)) if folder else row.path)
    mark = "~" if _is_estimate(row) else ""
    return (
        path,
        row.architecture or "",
        row.file_type or "",
        format_count(row.n_params) if row.n_params else "",
        "" if row.file_bytes is None else format_bytes(row.file_bytes),
        f"{row.n_ctx:,}" if row.n_ctx else "",
        _mib(row.model_bytes),
        _mib(row.context_bytes),
        mark + _mib(row.compute_bytes),
        mark + _mib(row.total_bytes),
        _mib(row.process_bytes),
    )


def _mib(nbytes: int | None) -> str:
    return "" if nbytes is None else format_mib(nbytes)


def _is_estimate(row: FileRow) -> bool:
    return row.basis is not None and "estimate" in (row.basis["model"], row.basis["context"], row.basis["compute"])
