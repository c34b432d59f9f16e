"""The report on many models: a text table with a row a file, or JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ggufphys.plan.folder import FileRow
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.units import format_bytes, format_count, format_mib

_HEADER = ("file", "architecture", "type", "params", "size", "n_ctx", "model", "context", "compute", "total", "")
_RIGHT = (3, 4, 5, 6, 7, 8, 9)


def folder_text(rows: Sequence[FileRow], folder: str = "") -> str:
    """The table, memory in MiB; paths below `folder` are shown without it."""
    lines = table(_HEADER, [_cells(row, folder) for row in rows], right=_RIGHT)
    nbytes = sum(row.file_bytes or 0 for row in rows)
    lines += ["", f"{len(rows)} files, {format_bytes(nbytes)} on disk; memory in MiB; total: llama.cpp's buffers"]
    if any(_is_estimate(row) for row in rows):
        lines.append("~ is an estimate")
    return "\n".join(lines)


def folder_json(rows: Sequence[FileRow]) -> str:
    """One document; every row has every key, null where a figure is not known."""
    return dumps({"schema_version": SCHEMA_VERSION, "files": [asdict(row) for row in rows]})


def _cells(row: FileRow, folder: str) -> tuple[str, ...]:
    path = str(Path(row.path).relative_to(folder)) if folder else row.path
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
        row.reason,
    )


def _mib(nbytes: int | None) -> str:
    return "" if nbytes is None else format_mib(nbytes)


def _is_estimate(row: FileRow) -> bool:
    return row.basis is not None and "estimate" in (row.basis["model"], row.basis["context"], row.basis["compute"])
