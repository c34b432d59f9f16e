"""What llama.cpp accounts for a small model on devices, as rows of bytes: asked, kept, compared with ours."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ggufphys.errors import UnsupportedError
from ggufphys.gguf import open_gguf
from ggufphys.memory.predict import Predictor
from ggufphys.params import HOST, Params
from tests import archs, oracle

Grid = Mapping[str, Params]
Row = tuple[tuple[int, int, int], ...] | str
"""(model, context, compute) bytes of the host and of each device, or "refused" or "aborts"."""


def asked(path: Path, grid: Grid, environment: Mapping[str, str], *, no_alloc: bool = True) -> Iterator[Row]:
    """llama.cpp's rows of one file, in a new process behind each configuration that ends one."""
    left = list(grid.values())
    while left:
        answers, died = oracle.ask_until_death(path, left, environment, no_alloc=no_alloc)
        yield from (row_of(answer, params) for answer, params in zip(answers, left, strict=False))
        if died:
            yield "aborts"
        left = left[len(answers) + died :]


def row_of(answer: Mapping[str, Any], params: Params) -> Row:
    """What a record keeps of an answer of the oracle; what is in no device's buffer is the host's."""
    if "error" in answer:
        return "refused"
    sums = {name: [0, 0, 0] for name in (HOST, *(d.name for d in params.devices))}
    for buffer, sizes in answer["by_buffer"].items():
        row = sums[buffer if buffer in sums else HOST]
        for i, quantity in enumerate(("model", "context", "compute")):
            row[i] += sizes[quantity]
    return tuple((m, c, b) for m, c, b in sums.values())


def read(path: Path, grid: Grid) -> Mapping[str, Mapping[str, Row]]:
    """Rows by model and configuration."""
    models = json.loads(path.read_text())["models"]
    return {name: dict(zip(grid, map(_row, rows), strict=True)) for name, rows in models.items()}


def _row(row: Any) -> Row:
    return row if isinstance(row, str) else tuple((m, c, b) for m, c, b in row)


def write(path: Path, models: Mapping[str, Sequence[Row]], **of_what: str) -> None:
    """Keep the rows of models, and of what they are."""
    head = json.dumps({"llama_cpp": "0c1e570", **of_what})
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(rows, separators=(',', ':'))}" for name, rows in models.items()
    )
    path.write_text(f'{head[:-1]}, "models": {{\n{lines}\n}}}}\n')


def predicted(predictor: Predictor, params: Params) -> Row:
    """The row that ours would be recorded as."""
    try:
        devices = predictor.predict(params).devices
    except ValueError:
        return "refused"
    return tuple((d.model_bytes, d.context_bytes, d.compute_bytes) for d in devices)


def differences(name: str, folder: Path, grid: Grid, theirs: Mapping[str, Row]) -> Iterator[str]:
    """Rows of one model that are not llama.cpp's; what it ends itself over must be refused or is not compared."""
    path = folder / "model.gguf"
    path.write_bytes(archs.header(name))
    with open_gguf(path) as gguf:
        try:
            predictor = Predictor(gguf)
        except UnsupportedError:  # a draft model that is nothing without its target
            return
        for configuration, row in theirs.items():
            if row != "aborts" and (ours := predicted(predictor, grid[configuration])) != row:
                yield f"{name}, {configuration}: {ours}, llama.cpp's {row}"
