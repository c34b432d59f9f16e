"""What llama.cpp accounts for the small models on devices that exist on paper (`scripts/build_paper.py`): records.

These take every operation and put graphs in order by the code of a real backend, so that its rules can be compared with
llama.cpp's own where no such device is at hand. What the real one adds to single operations is not in these figures.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from ggufphys.params import Device, Params
from scripts.build_paper import Paper, library_of
from server.engine.llama.devices import BACKEND_PATH
from tests import archs, device_rows

_BASE: Final = Params(n_ctx=4096, use_extra_bufts=False, use_mmap=False)
_CHANGES: Final[Mapping[str, Mapping[str, object]]] = {
    "all": {},
    "two layers": {"n_gpu_layers": 2},
    "four sequences": {"n_ctx": 8192, "n_seq_max": 4},
    "without flash attention": {"flash_attn": "off", "n_seq_max": 2, "n_ubatch": 128},
}


def grid(paper: Paper) -> Mapping[str, Params]:
    """Configurations on such a device."""
    devices = (Device(name=f"{paper.name}0", memory_bytes=24 << 30),)
    return {name: replace(_BASE, devices=devices, **changes) for name, changes in _CHANGES.items()}  # type: ignore[arg-type]


def environment(paper: Paper, folder: Path) -> Mapping[str, str]:
    """What llama.cpp's process needs to have the device."""
    return {BACKEND_PATH: os.fspath(library_of(paper, folder).resolve()), "GGML_NO_BACKTRACE": "1"}


def path_of(paper: Paper) -> Path:
    """Where its records are."""
    return archs.DATA / f"paper-{paper.name.lower()}.json"


@cache
def records(paper: Paper) -> Mapping[str, Mapping[str, device_rows.Row]]:
    """By model and configuration."""
    return device_rows.read(path_of(paper), grid(paper))
