"""What can a machine do? Rates of its processors, measured (`bench calibrate`) or from a data sheet.

A processor of a data sheet has how fast it reads memory and computes. A calibrated one has, beside these, what each
kernel of llama.cpp was measured to take: these count where there are any. All seconds are those of one node of a graph
on `n_threads` threads.
"""

import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Self

from ggufphys.errors import GGUFPhysError
from ggufphys.frozen import asdict, dataclass, field, replace
from ggufphys.speed.sound import faults
from ggufphys.units import parse_json, read_text

SCHEMA_VERSION: Final = 7
RULES: Final = 3  # how they are reckoned with; one more whenever the same rates predict another figure
Basis = Literal["calibrated", "published"]
Sort = Literal["products", "products from memory", "attention", "streams", "others"]
"""Nodes that a slower core slows alike."""


class CalibrationError(GGUFPhysError, ValueError):
    """A file of rates that cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductRate:
    """Weights times `n_columns` columns: a row of the result takes `row_s`, each weight of it `weight_s` more.

    That is with weights that a core's own cache holds. `fetched` is what a weight takes more from main memory, by how
    many a row has, ascending: rows that are shorter than a page come more slowly. Empty: nothing. `converted_s` is what
    an element of a column takes to be brought into the kernel's own type before, shared evenly by the threads.
    `begin_s` is what the whole product takes until weights come from main memory as fast as that: several threads take
    rows by parts that lie apart, and each part's first ones have not been fetched ahead. `fetched_within` is `fetched`
    of rows that begin within a cache line, not with one; empty: the same.
    """

    n_columns: int
    row_s: float
    weight_s: float
    fetched: Sequence[tuple[int, float]] = ()
    converted_s: float = 0.0
    begin_s: float = 0.0
    fetched_within: Sequence[tuple[int, float]] = ()

    def row(self, n_in: int, *, within: bool = False) -> tuple[float, float]:
        """Seconds of a row of so many weights from a cache, and from main memory."""
        cached_s = self.row_s + n_in * self.weight_s
        fetched = self.fetched_within if within and self.fetched_within else self.fetched
        return cached_s, cached_s + _fetching_s(fetched, n_in)

    def slowed(self, cached: float, far: float) -> "ProductRate":
        """The same where weights in a cache take so many times as long, and those from main memory so many."""

        def fetched_s(n_in: int, seconds: float) -> float:
            cached_s = self.weight_s + self.row_s / n_in
            return max(0.0, far * (cached_s + seconds) - cached * cached_s)

        return replace(
            self,
            row_s=cached * self.row_s,
            weight_s=cached * self.weight_s,
            fetched=tuple((n_in, fetched_s(n_in, seconds)) for n_in, seconds in self.fetched),
            fetched_within=tuple((n_in, fetched_s(n_in, seconds)) for n_in, seconds in self.fetched_within),
            converted_s=cached * self.converted_s,
            begin_s=far * self.begin_s,
        )


def _fetching_s(fetched: Sequence[tuple[int, float]], n_in: int) -> float:
    """Of a row: what beginning it takes and what each weight does, so that it lies on lines over its length."""
    if not fetched:
        return 0.0
    i = bisect_left(fetched, (n_in, 0.0))
    if i == 0 or i == len(fetched):
        return n_in * fetched[min(i, len(fetched) - 1)][1]
    (n0, s0), (n1, s1) = fetched[i - 1 : i + 1]
    return n0 * s0 + (n_in - n0) / (n1 - n0) * (n1 * s1 - n0 * s0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionRate:
    """Flash attention with heads of `head_size`: each head of each token takes `head_s`, and `cell_s` a visible cell.

    `n_head_kv` heads stand beside each other in a cell: the more, the further a head's cells are apart. `far_cell_s` is
    what a cell of a head of the cache takes to come from main memory, for all heads that share it; `tiled_cell_s` is
    `cell_s` for prompts of a tile of tokens or more; `masked_cell_s` is what stepping over an invisible one takes.
    """

    head_size: int
    n_head_kv: int
    head_s: float
    cell_s: float
    far_cell_s: float
    tiled_cell_s: float
    masked_cell_s: float = 0.0

    def slowed(self, by: float) -> "AttentionRate":
        """The same where everything takes so many times as long."""
        return replace(
            self,
            head_s=by * self.head_s,
            cell_s=by * self.cell_s,
            far_cell_s=by * self.far_cell_s,
            tiled_cell_s=by * self.tiled_cell_s,
            masked_cell_s=by * self.masked_cell_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRate:
    """Seconds an element: of one row in a cache, and of many rows."""

    row_s: float
    rows_s: float

    def slowed(self, by: float) -> "OperationRate":
        """The same where everything takes so many times as long."""
        return replace(self, row_s=by * self.row_s, rows_s=by * self.rows_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """One device, by llama.cpp's name for it ("CPU", "CUDA0"), with so many threads (0: it has none of its own).

    Args:
        streams: how fast bytes come, by how many are read again and again, ascending: caches are faster. One pair
            (0, rate) where only main memory's rate is known.
        streams_by_four: the same for kernels that read four rows at once. Empty: as `streams`.
        flops_per_s: of products, for what has no kernel among `products`.
        node_s: what each node takes beside its work: dispatch, and waiting for the other threads.
        step_s: what each batch takes beside its nodes.
        step_node_s: what each node of the graph, views too, adds to that.
        band: what seconds may be less and more, as factors: (0.9, 1.15).
        products: by the weights' type, "Q4_K" or "Q4_K repacked", ascending by columns.
        attention: by the cache's type, ascending by head size, then by heads in a cell.
        operations: by ggml's name; "GLU geglu" where the kind counts.
        gauge_s: what a product took that nothing but arithmetic limits, on average while all this was measured. What it
            takes at another time says how the machine's pace has changed since.
        follows: the power of the gauge's seconds that others' go with: less than 1 where a slower core costs them less.
    """

    name: str
    n_threads: int
    streams: Sequence[tuple[int, float]]
    flops_per_s: float
    streams_by_four: Sequence[tuple[int, float]] = ()
    node_s: float = 0.0
    step_s: float = 0.0
    step_node_s: float = 0.0
    band: tuple[float, float] = (1.0, 1.0)
    products: Mapping[str, Sequence[ProductRate]] = field(default_factory=dict)
    attention: Mapping[str, Sequence[AttentionRate]] = field(default_factory=dict)
    operations: Mapping[str, OperationRate] = field(default_factory=dict)
    gauge_s: float = 0.0
    follows: Mapping[Sort, float] = field(default_factory=dict)

    @property
    def bytes_per_s(self) -> float:
        """From main memory."""
        return self.streams[-1][1]

    def stream(self, nbytes: float) -> float:
        """Bytes a second when so many are read again and again."""
        return _along(self.streams, nbytes)

    def cold_share(self, nbytes: float, *, by_four: bool = False) -> float:
        """The share of bytes that come from main memory, 0 to 1, when so many are read again and again."""
        streams = (self.streams_by_four if by_four else ()) or self.streams
        slow, fast, now = (1 / r for r in (streams[-1][1], streams[0][1], _along(streams, nbytes)))
        return min(1.0, max(0.0, (now - fast) / (slow - fast))) if slow > fast else 1.0

    def at_pace(self, pace: float) -> "Processor":
        """The same processor while its gauge takes so many times as long."""

        def by(sort: Sort) -> float:
            return float(pace ** self.follows.get(sort, 1.0))

        cached, far, others = by("products"), by("products from memory"), by("others")
        return replace(
            self,
            flops_per_s=self.flops_per_s / pace,
            node_s=others * self.node_s,
            step_s=others * self.step_s,
            step_node_s=others * self.step_node_s,
            products={name: tuple(r.slowed(cached, far) for r in rates) for name, rates in self.products.items()},
            attention={name: tuple(r.slowed(by("attention")) for r in rates) for name, rates in self.attention.items()},
            operations={name: rate.slowed(others) for name, rate in self.operations.items()},
            gauge_s=pace * self.gauge_s,
        )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict` after a journey through JSON."""
        rates: dict[str, Any] = {
            **{name: _stream_rates(fields.get(name, ())) for name in ("streams", "streams_by_four")},
            "band": tuple(fields.get("band", (1.0, 1.0))),
            "products": {n: tuple(map(_product_rate, rows)) for n, rows in fields.get("products", {}).items()},
            "attention": {
                n: tuple(AttentionRate(**r) for r in rows) for n, rows in fields.get("attention", {}).items()
            },
            "operations": {n: OperationRate(**r) for n, r in fields.get("operations", {}).items()},
        }
        return cls(**{**fields, **rates})


def _along(streams: Sequence[tuple[int, float]], nbytes: float) -> float:
    """Bytes a second of so many: straight lines of seconds between those that were measured."""
    previous = streams[0]
    for point in streams:
        if nbytes <= point[0]:
            share = 1.0 if point[0] == previous[0] else (nbytes - previous[0]) / (point[0] - previous[0])
            return 1 / ((1 - share) / previous[1] + share / point[1])
        previous = point
    return previous[1]


def _stream_rates(found: Sequence[Sequence[float]]) -> tuple[tuple[int, float], ...]:
    return tuple((int(nbytes), float(rate)) for nbytes, rate in found)


def _product_rate(fields: Mapping[str, Any]) -> ProductRate:
    by_length = {
        name: tuple((int(n), float(s)) for n, s in fields.get(name, ())) for name in ("fetched", "fetched_within")
    }
    return ProductRate(**{**fields, **by_length})


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine's processors: the host's, one for each number of threads that was measured, and other devices'.

    `identity` says which machine and which llama.cpp it was; `link_bytes_per_s` is between host and devices, 0 where
    there are none; `disk_bytes_per_s` from the disk, `cached_bytes_per_s` from the page cache, `repack_bytes_per_s`
    into repacked layouts; `token_s` is what each token of a vocabulary takes to load. 0 for unknown.
    """

    name: str
    basis: Basis
    source: str
    processors: Sequence[Processor]
    disk_bytes_per_s: float = 0.0
    cached_bytes_per_s: float = 0.0
    repack_bytes_per_s: float = 0.0
    token_s: float = 0.0
    link_bytes_per_s: float = 0.0
    identity: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def host(self, n_threads: int) -> Processor:
        """The host with so many threads, or with the nearest number below; the least there is if there is none."""
        hosts = sorted((p for p in self.processors if p.name == "CPU"), key=lambda p: p.n_threads)
        if not hosts:
            raise CalibrationError(f"{self.name}: no rates of a CPU, only {', '.join(p.name for p in self.processors)}")
        below = [p for p in hosts if p.n_threads <= n_threads]
        return below[-1] if below else hosts[0]

    def device(self, name: str) -> Processor | None:
        """A device by llama.cpp's name for it."""
        return next((p for p in self.processors if p.name == name), None)

    def at_pace(self, pace: float, n_threads: int) -> "Machine":
        """The same with a host whose arithmetic takes so many times as long on so many threads."""
        host = self.host(n_threads)
        return replace(self, processors=[p.at_pace(pace) if p is host else p for p in self.processors])

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            CalibrationError: made by another version, or not by us.
        """
        fields = dict(document)
        version = fields.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise CalibrationError(
                f"a calibration of schema {version}, expected {SCHEMA_VERSION}: run `ggufphys bench calibrate` again"
            )
        try:
            if fault := next(faults(fields), ""):
                raise ValueError(fault)
            fields["processors"] = tuple(Processor.from_json(p) for p in fields["processors"])
            return cls(**fields)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CalibrationError(
                f"a calibration that cannot be read ({error}): run `ggufphys bench calibrate` again"
            ) from None


def read_machine(path: str | os.PathLike[str]) -> Machine:
    """The machine kept in a file.

    Raises:
        CalibrationError: the file is not a calibration.
        OSError: it cannot be read.
    """
    try:
        document = parse_json(read_text(path))
    except ValueError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise CalibrationError(f"{path}: not JSON ({said}): run `ggufphys bench calibrate` again") from None
    if not isinstance(document, dict):
        raise CalibrationError(f"{path}: expected an object with rates: run `ggufphys bench calibrate` again")
    return Machine.from_json(document)
