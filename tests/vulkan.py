"""What llama.cpp's Vulkan backend accounts for the small models: records, and how to ask it without a GPU.

Mesa's lavapipe is the device; `scripts/vulkan_shim.c` lets it report the limits of a discrete GPU, `LIMITS`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from ggufphys.limits import DeviceLimits
from ggufphys.params import HOST, Device, Params
from scripts.build_vulkan import SHIM
from server.engine.devices import BACKEND_PATH
from tests import archs

RECORDS: Final = archs.DATA / "vulkan.json"
HEAP_BYTES: Final = 24 << 30
LIMITS: Final = DeviceLimits(kind="cpu", allocation_bytes=1 << 31, subgroup_size=8)
DEVICES: Final = tuple(Device(name=f"Vulkan{i}", memory_bytes=HEAP_BYTES, limits=LIMITS) for i in range(2))
_BASE: Final = Params(n_ctx=4096, use_extra_bufts=False, use_mmap=False, no_alloc=True, devices=DEVICES[:1])
GRID: Final[Mapping[str, Params]] = {
    "all": _BASE,
    "two layers": replace(_BASE, n_gpu_layers=2),
    "four sequences": replace(_BASE, n_ctx=8192, n_seq_max=4),
    "without flash attention": replace(_BASE, flash_attn="off", n_seq_max=2, n_ubatch=128),
    "two devices": replace(_BASE, devices=DEVICES, tensor_split=(2.0, 1.0)),
    "q8_0 cache": replace(_BASE, n_ctx=2048, type_k="q8_0", type_v="q8_0"),
}

Row = tuple[tuple[int, int, int], ...] | str
"""(model, context, compute) bytes of the host and of each device, or "refused" or "aborts"."""


def environment(library: Path, *, as_discrete: bool) -> Mapping[str, str]:
    """What llama.cpp's process needs to use lavapipe as two devices, under its own limits or under `LIMITS`."""
    own = {BACKEND_PATH: os.fspath(library), "GGML_VK_VISIBLE_DEVICES": "0,0", "GGML_NO_BACKTRACE": "1"}
    if not as_discrete:
        return own
    return {
        **own,
        "LD_PRELOAD": os.fspath(library.with_name(SHIM)),
        "SHIM_RANGE": str(LIMITS.storage_buffer_range_bytes),
        "SHIM_ALIGN": str(LIMITS.storage_buffer_alignment_bytes),
        "SHIM_HEAP": str(HEAP_BYTES),
    }


@cache
def records() -> Mapping[str, Mapping[str, Row]]:
    """By model and configuration."""
    models = json.loads(RECORDS.read_text())["models"]
    return {name: dict(zip(GRID, map(_row, rows), strict=True)) for name, rows in models.items()}


def _row(row: Any) -> Row:
    return row if isinstance(row, str) else tuple((m, c, b) for m, c, b in row)


def row_of(answer: Mapping[str, Any] | None, params: Params) -> Row:
    """What a record keeps of an answer of the oracle; what is in no device's buffer is the host's."""
    if answer is None:
        return "aborts"
    if "error" in answer:
        return "refused"
    sums = {name: [0, 0, 0] for name in (HOST, *(d.name for d in params.devices))}
    for buffer, sizes in answer["by_buffer"].items():
        row = sums[buffer if buffer in sums else HOST]
        for i, quantity in enumerate(("model", "context", "compute")):
            row[i] += sizes[quantity]
    return tuple((m, c, b) for m, c, b in sums.values())


def encode(models: Mapping[str, Sequence[Row]]) -> str:
    """The file of records."""
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(rows, separators=(',', ':'))}" for name, rows in models.items()
    )
    return f'{{"llama_cpp": "0c1e570", "device": "lavapipe, Mesa 22.3.6", "models": {{\n{lines}\n}}}}\n'
