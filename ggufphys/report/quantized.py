"""The answer to `inspect --quantize` as a text table and JSON."""

from collections.abc import Sequence

from ggufphys.frozen import asdict
from ggufphys.gguf import GGUFFile
from ggufphys.plan.quantized import QuantizedFile
from ggufphys.report.inspection import Section, table
from ggufphys.units import format_bytes


def quantized_section(gguf: GGUFFile, rows: Sequence[QuantizedFile]) -> Section:
    """A row for each file type, in the order given."""
    lines = quantized_lines(rows, gguf.tensor_bytes)
    return Section(key="quantized", lines=tuple(lines), value=[asdict(row) for row in rows])


def quantized_lines(rows: Sequence[QuantizedFile], tensor_bytes: int) -> list[str]:
    """The table; what is refused stands below it, with the reason once for all types that have it.

    `tensor_bytes` are those of the file as it is, where they are known.
    """
    header = ("as", "file", "bpw", "of this", "weights", "buffers", "process", "")
    possible = [_row(row, tensor_bytes) for row in rows if row.refused is None]
    refused: dict[str, list[str]] = {}
    for row in rows:
        if row.refused is not None:
            refused.setdefault(row.refused, []).append(row.file_type)
    lines = table(header, possible, right=(1, 2, 3, 4, 5, 6)) if possible else []
    lines += [f"not {', '.join(types)}: {why}" for why, types in refused.items()]
    if any(row.needs_imatrix for row in rows):
        lines.append("imatrix: llama-quantize insists on an importance matrix; the types are those it chooses with one")
    return lines


def _row(row: QuantizedFile, tensor_bytes: int) -> tuple[str, ...]:
    assert row.bpw is not None
    assert row.tensor_bytes is not None
    return (
        row.file_type,
        _size(row.file_bytes),
        f"{row.bpw:.2f}",
        f"{row.tensor_bytes / tensor_bytes:.0%}" if tensor_bytes else "-",
        _size(row.model_bytes),
        _size(row.total_bytes),
        _size(row.process_bytes),
        "imatrix" if row.needs_imatrix else "",
    )


def _size(nbytes: int | None) -> str:
    return "?" if nbytes is None else format_bytes(nbytes)
