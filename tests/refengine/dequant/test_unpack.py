"""Packed bytes to small integers."""

import numpy as np
import pytest

from refengine.dequant.unpack import contiguous, fields, nibbles, planes


@pytest.mark.parametrize("n_bits", [1, 2, 4])
def test_planes(n_bits: int) -> None:
    """Plane i holds bits i * n_bits and up of every byte."""
    packed = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = [[[b >> s & (1 << n_bits) - 1 for b in row] for row in packed.tolist()] for s in range(0, 8, n_bits)]

    assert expected == planes(packed, n_bits).tolist()
    swapped = packed.reshape(2, 8, 16).swapaxes(0, 1)
    assert planes(swapped, n_bits).tolist() == planes(swapped.copy(), n_bits).tolist()


@pytest.mark.parametrize("n_bits", [1, 2, 4])
def test_fields(n_bits: int) -> None:
    """A byte's fields follow one another, the lowest first."""
    packed = np.arange(256, dtype=np.uint8).reshape(64, 4)
    expected = [[b >> s & (1 << n_bits) - 1 for b in row for s in range(0, 8, n_bits)] for row in packed.tolist()]

    assert expected == fields(packed, n_bits).tolist()


def test_nibbles() -> None:
    """All low nibbles of a block of 32 come before all high ones."""
    packed = np.arange(32, dtype=np.uint8).reshape(2, 16) * 7
    expected = [[b & 15 for b in row] + [b >> 4 for b in row] for row in packed.tolist()]

    assert expected == nibbles(packed).tolist()


def test_contiguous() -> None:
    """A field of structs without the gaps between; what has none is not copied."""
    structs = np.arange(30, dtype=np.uint8).view(np.dtype([("d", "<f2"), ("qs", "u1", 4), ("e", "<u4")]))
    packed = np.arange(32, dtype=np.uint8).reshape(2, 16)

    assert structs["qs"].tolist() == contiguous(structs["qs"]).tolist()
    assert contiguous(structs["qs"]).flags.c_contiguous
    assert np.shares_memory(packed, contiguous(packed))
