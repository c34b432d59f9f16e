"""The answer of `fit FOLDER`: a row a model, whether it fits, and with which flags."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ggufphys.frozen import asdict, dataclass, replace
from ggufphys.params import HOST
from ggufphys.plan.fit import Place
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.units import format_bytes, format_mib

if TYPE_CHECKING:
    from ggufphys.speed.predict import Figure

_HEADER = ("file", "type", "size", "fits", "n_ctx", "layers", "MiB left", "on", "flags")
_RATE: Final = 4  # the column that stands before n_ctx where speed is known


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
    enough: bool = True  # as fast as is wanted; true as well where nothing was
    tok_per_s: "Figure | None" = None  # generated; None where the machine's speed is not known
    flags: tuple[str, ...] = ()
    reason: str = ""

    def but(self, **changes: Any) -> "FitRow":
        """The row with other fields."""
        return replace(self, **changes)


def fit_folder_text(rows: Sequence[FitRow], notes: Sequence[str], folder: str) -> str:
    """The table; the flags of what fits can be pasted behind `llama-server -m FILE`."""
    lines = _table(rows, folder if Path(folder).is_dir() else "")
    judged = [row for row in rows if row.fits is not None]
    fitting = [row for row in judged if row.fits]
    said = f"{len(fitting)} of {len(judged)} fit"
    if slow := [row for row in fitting if not row.enough]:
        said += f", {len(slow)} of these too slow"
    if judged:
        lines += ["", f"{said}; for a model that does not, the run that needs the least memory is shown"]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def _table(rows: Sequence[FitRow], root: str) -> list[str]:
    cells = [_cells(row, root) for row in rows]
    if not any(row.tok_per_s for row in rows):
        return table(_HEADER, cells, right=(2, 4, 5, 6))
    with_rates = [(*cell[:_RATE], _rate(row), *cell[_RATE:]) for cell, row in zip(cells, rows, strict=True)]
    return table((*_HEADER[:_RATE], "tokens/s", *_HEADER[_RATE:]), with_rates, right=(2, 4, 5, 6, 7))


def fit_folder_json(rows: Sequence[FitRow], notes: Sequence[str]) -> str:
    """One document; every row has every key."""
    files = [{**asdict(row), "tightest": None if row.tightest is None else _place(row.tightest)} for row in rows]
    return dumps({"schema_version": SCHEMA_VERSION, "files": files, "notes": list(notes)})


def _rate(row: FitRow) -> str:
    from ggufphys.report.speed import format_rate  # where speed is known

    return "" if row.tok_per_s is None else format_rate(row.tok_per_s.value)


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
        "no" if not row.fits else "yes" if row.enough else "slow",
        f"{row.n_ctx:,}",
        f"{row.n_offloaded} of {row.n_layers}",
        format_mib(row.tightest.left_bytes - (0 if row.fits else row.tightest.margin_bytes)),
        "main memory" if row.tightest.name == HOST else row.tightest.name,
        shlex.join(row.flags),
    )
