"""Predicted and measured tokens a second side by side: a row for each quantity of a file, as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.report.speed import format_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity of one file run in one way; tokens a second. `peers` are others' figures for the same.

    `pace` is how many times as long arithmetic took meanwhile as when the machine was calibrated, by the gauge; `paced`
    is what is predicted at that pace. `token_flops` and `token_bytes`, of weights and cache, are what a token costs.
    """

    file: str
    n_threads: int
    repacked: bool
    quantity: str
    n: int
    predicted: float
    low: float
    high: float
    limit: str
    pace: float
    paced: float
    measured: float
    busy: float
    token_flops: float
    token_bytes: float
    peers: dict[str, float]

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1

    @property
    def paced_error(self) -> float:
        """Predicted over measured, less one, with the prediction at the pace that the machine had then."""
        return self.paced / self.measured - 1


def as_text(rows: Sequence[Row]) -> str:
    """The table, and how far off predictions were."""
    names = list(dict.fromkeys(name for row in rows for name in row.peers))
    cells = [
        (
            row.file, str(row.n_threads), "yes" if row.repacked else "no", f"{row.quantity} {row.n:,}",
            format_rate(row.predicted), format_rate(row.measured), f"{100 * row.error:+.1f}", f"{row.pace:.2f}",
            format_rate(row.paced), f"{100 * row.paced_error:+.1f}",
            "" if row.low <= row.measured <= row.high else "outside", row.limit, f"{row.busy:.0%}",
            *(_peer(row, name) for name in names),
        )
        for row in rows
    ]  # fmt: skip
    heads = (
        "file", "threads", "repack", "", "predicted", "measured", "%", "pace", "at that pace", "%", "range", "limit",
        "busy", *names,
    )  # fmt: skip
    lines = [*table(heads, cells, right=(1, 4, 5, 6, 7, 8, 9, 12)), ""]
    if rows:
        lines.append(f"{len(rows)} figures: error {_spread([row.error for row in rows])}")
        lines.append(f"at the pace that the machine had then: {_spread([row.paced_error for row in rows])}")
    return "\n".join(lines)


def _spread(errors: Sequence[float]) -> str:
    sizes = sorted(map(abs, errors))
    return f"{median(sizes):.1%} in the median, {sizes[-1]:.1%} at worst"


def _peer(row: Row, name: str) -> str:
    rate = row.peers.get(name)
    return "" if rate is None else f"{format_rate(rate)} ({100 * (rate / row.measured - 1):+.0f} %)"


def as_json(rows: Sequence[Row]) -> str:
    """The document of `--json`."""
    return dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "rows": [{**asdict(row), "error": row.error, "paced_error": row.paced_error} for row in rows],
        }
    )
