"""The answer to `inspect --explain`: layers as a table, terms with formula and source; JSON with a row a layer."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ggufphys.frozen import asdict
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.terms import Quantity, Term, total
from ggufphys.plan.explain import KeptTensor, LayerRow, folded
from ggufphys.report.inspection import Section, table
from ggufphys.units import format_mib

_HEADER: Final = ("layers", "on", "keeps", "cells", "tensors", "MiB a layer", "MiB")
_QUANTITIES: Final[tuple[Quantity, ...]] = (
    "model", "context", "compute", "output", "attachment", "process", "transient", "ceiling",
)  # fmt: skip


def explain_section(rows: Sequence[LayerRow], prediction: MemoryPrediction) -> Section:
    """Layers that keep alike are one line of text, and a row each in the document; the terms stand in `memory`."""
    lines = [
        *table(_HEADER, map(_cells, folded(rows)), right=(5, 6)),
        "",
        *_term_lines(prediction.terms),
    ]
    return Section(key="layers", lines=tuple(lines), value=[_value(row) for row in rows])


def _cells(row: LayerRow) -> tuple[str, ...]:
    place = row.device if row.kv_device == row.device else f"{row.device}, cache {row.kv_device}"
    cells = "" if row.n_cells is None else f"{row.n_cells:,}"
    if row.n_stream is not None and row.n_stream > 1:
        cells = f"{row.n_stream} x {cells}"
    return (
        f"{row.first}" if row.first == row.last else f"{row.first}-{row.last}",
        place,
        row.keeps,
        cells,
        ", ".join(map(_tensor, row.tensors)),
        format_mib(row.nbytes) if row.tensors else "",
        format_mib(row.total_bytes) if row.tensors else "",
    )


def _tensor(t: KeptTensor) -> str:
    return f"{t.name} {t.width} {t.type}"


def _term_lines(terms: Iterable[Term]) -> Iterator[str]:
    """Each quantity with its sum, its terms indented: bytes, what, where; formula and source below."""
    terms = tuple(terms)
    for quantity in _QUANTITIES:
        addends = [term for term in terms if term.quantity == quantity]
        if not addends:
            continue
        nbytes = total(terms, quantity)
        yield f"{quantity}: {nbytes:,} B, {format_mib(nbytes)} MiB" + (
            ", in no total" * (quantity in ("ceiling", "transient"))
        )
        width = len(f"{max(term.nbytes for term in addends):,}")
        for term in addends:
            place = term.device if term.buffer in ("", term.device) else f"{term.device}, {term.buffer}"
            if term.phase is not None:
                place = f"{term.backing}, {'in' if quantity == 'transient' else 'from'} phase {term.phase}"
            yield f"  {term.nbytes:>{width},} B  {term.name} ({place})"
            yield f"  {'':{width}}    = {term.formula}"
            yield f"  {'':{width}}    {term.source}"


def _value(row: LayerRow) -> dict[str, object]:
    value = asdict(row)
    del value["last"]
    return {"layer": value.pop("first"), **value}
