"""The answer of `fit FOLDER`: a row a model, whether it fits, and with which flags."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ggufphys.frozen import asdict, dataclass, replace
from ggufphys.params import HOST
from ggufphys.plan.fit import Place
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.units import format_bytes, format_mib

_HEADER = ("file", "type", "size", "fits", "n_ctx", "layers", "MiB left", "on", "flags")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRow:
    """One model, run in the best way there is. Figures that are not known are None, and `reason` then says why."""

    path: str
    architecture: str | None = None  # None: not readable
    name: str | None = None
    file_type: str | None = None
    file_bytes: int | None = None
    fits: bool | None = None
    n_ctx: int | None = None
    n_layers: int | None = None  # the output being one
    n_offloaded: int | None = None
    tightest: Place | None = None
    flags: tuple[str, ...] = ()
    reason: str = ""

    def but(self, **changes: Any) -> "FitRow":
        """The same with other fields."""
        return replace(self, **changes)


def fit_folder_text(rows: Sequence[FitRow], notes: Sequence[str], folder: str) -> str:
    """The table; the flags of what fits can be pasted behind `llama-server -m FILE`."""
    root = folder if Path(folder).is_dir() else ""
    lines = table(_HEADER, [_cells(row, root) for row in rows], right=(2, 4, 5, 6))
    judged = [row.fits for row in rows if row.fits is not None]
    lines += ["", f"{sum(judged)} of {len(judged)} fit; of one that does not, the run that takes the least is shown"]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def fit_folder_json(rows: Sequence[FitRow], notes: Sequence[str]) -> str:
    """One document; every row has every key."""
    files = [{**asdict(row), "tightest": None if row.tightest is None else _place(row.tightest)} for row in rows]
    return dumps({"schema_version": SCHEMA_VERSION, "files": files, "notes": list(notes)})


def _place(place: Place) -> dict[str, Any]:
    return {**asdict(place), "left_bytes": place.left_bytes, "over_bytes": place.over_bytes}


def _cells(row: FitRow, root: str) -> tuple[str, ...]:
    path = str(Path(row.path).relative_to(root)) if root else row.path
    size = "" if row.file_bytes is None else format_bytes(row.file_bytes)
    if row.fits is None or row.tightest is None:
        return (path, row.file_type or "", size, "", "", "", "", "", row.reason)
    return (
        path,
        row.file_type or "",
        size,
        "yes" if row.fits else "no",
        f"{row.n_ctx:,}",
        f"{row.n_offloaded} of {row.n_layers}",
        format_mib(row.tightest.left_bytes - (0 if row.fits else row.tightest.margin_bytes)),
        "main memory" if row.tightest.name == HOST else row.tightest.name,
        shlex.join(row.flags),
    )
