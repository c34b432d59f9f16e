"""The tensor table: text, JSON."""

from ggufphys.gguf import GGUFFile
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.report.inspection_json import model_json
from ggufphys.units import counted, format_bytes


def tensors_text(gguf: GGUFFile) -> str:
    """The tensor table; shapes in ggml's order, innermost first."""
    rows = [
        (
            str(i),
            t.name,
            " x ".join(f"{n:,}" for n in t.ne) or "scalar",
            t.type_name,
            "?" if t.nbytes is None else f"{t.nbytes:,}",
            f"{gguf.shards[t.shard].header.data_offset + t.offset:,}",
        )
        for i, t in enumerate(gguf.tensors)
    ]
    header = ("#", "name", "shape", "type", "bytes", "offset")
    lines = table(header, rows, right=(0, 4, 5))
    return "\n".join([*lines, "", f"{counted(len(rows), 'tensor')}, {format_bytes(gguf.tensor_bytes)}"])


def tensors_json(gguf: GGUFFile) -> str:
    """The tensor table as one JSON document."""
    rows = [
        {
            "name": t.name,
            "ne": list(t.ne),
            "type": t.type_name,
            "nbytes": t.nbytes,
            "shard": t.shard,
            "file_offset": gguf.shards[t.shard].header.data_offset + t.offset,
        }
        for t in gguf.tensors
    ]
    return dumps({"schema_version": SCHEMA_VERSION, "model": model_json(gguf), "tensors": rows})
