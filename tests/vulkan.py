"""What llama.cpp's Vulkan backend accounts for the small models: records, and how to ask it without a GPU.

Mesa's lavapipe is the device; `scripts/vulkan_shim.c` lets it report the limits of a discrete GPU, `LIMITS`.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from ggufphys.limits import DeviceLimits
from ggufphys.params import Device, Params
from scripts.build_vulkan import SHIM
from server.engine.llama.devices import BACKEND_PATH
from tests import archs, device_rows

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
def records() -> Mapping[str, Mapping[str, device_rows.Row]]:
    """By model and configuration."""
    return device_rows.read(RECORDS, GRID)
