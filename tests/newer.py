"""Small models of architectures that the pinned llama.cpp does not know, and what newer builds say of them.

`data/newer.toml` holds hyperparameters and tensors, `data/newer.json` what `scripts/record_newer.py` was told: for each
build and model a row for each configuration of `archs.GRID`.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ggufphys.gguf.writer import data_bytes, encode_header
from tests import archs
from tests.builds import Rows

HYPERPARAMETERS = archs.DATA / "newer.toml"
RECORDS = archs.DATA / "newer.json"


@cache
def models() -> Mapping[str, archs.ArchModel]:
    """All models by name."""
    shared = tomllib.loads(archs.HYPERPARAMETERS.read_text())
    entries = tomllib.loads(HYPERPARAMETERS.read_text())["models"]
    return {name: archs.model_of(name, entry, shared) for name, entry in entries.items()}


@cache
def records() -> Mapping[int, Rows]:
    """What each build said."""
    found = json.loads(RECORDS.read_text())
    return {
        int(build): {
            name: tuple(row if isinstance(row, str) else (row[0], row[1], row[2]) for row in rows)
            for name, rows in by_name.items()
        }
        for build, by_name in found.items()
    }


def write(path: Path, name: str) -> None:
    """The model's file at its full length, with a hole for weights."""
    model = models()[name]
    start = encode_header(model.metadata, model.given)
    path.write_bytes(start)
    os.truncate(path, len(start) + data_bytes(model.given))
