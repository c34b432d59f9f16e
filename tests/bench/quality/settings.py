"""A model file with another setting, for tests: the same bytes but for one boolean."""

import struct
from pathlib import Path

from ggufphys.gguf.values import ValueType


def with_setting(source: Path, target: Path, key: str, value: bool) -> Path:
    """Write `source` to `target` with the boolean `key` set."""
    before = struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", ValueType.BOOL)
    head, found, tail = source.read_bytes().partition(before)
    assert found, f"{source} has no boolean {key}"
    target.write_bytes(head + before + bytes([value]) + tail[1:])
    return target
