"""How do numbers of a few bits come out of packed bytes?

ggml packs in two ways. By planes: a run of 32 (or 16) bytes holds as many neighbouring weights in its lowest bits, the
weights after those in its next bits, and so on. By fields: each byte holds neighbouring weights, the first lowest.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from refengine.blocks import F32, U8


def planes(packed: U8, n_bits: int) -> U8:
    """Numbers of `n_bits` (1, 2 or 4) from bytes, plane by plane: `(...)` gives `(8 // n_bits, ...)`.

    The last axis has a multiple of 8 bytes: they are shifted 8 at a time, for numpy shifts single bytes slowly.
    """
    words = contiguous(packed).view("<u8")
    shifts = np.arange(0, 8, n_bits, dtype=np.uint64).reshape(-1, *[1] * words.ndim)
    unpacked = words >> shifts
    unpacked &= np.uint64(((1 << n_bits) - 1) * 0x0101010101010101)
    return unpacked.view(np.uint8)


def contiguous(packed: U8) -> U8:
    """Bytes `(..., k)` without gaps; only the last axis has to be so before.

    Copied, where that is needed, as items of k bytes: byte by byte, numpy takes many times as long.
    """
    return np.ascontiguousarray(packed.view(f"V{packed.shape[-1]}")).view(np.uint8)


def _fields_of_all_bytes(n_bits: int) -> U8:
    return np.ascontiguousarray(planes(np.arange(256, dtype=np.uint8), n_bits).T)


# The fields of each byte as one item, so that a look-up copies them all: `(256,)` of 8 / n_bits bytes.
_FIELDS: Final[Mapping[int, np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]]]] = {
    2: _fields_of_all_bytes(2).view(np.uint32)[:, 0],
    4: _fields_of_all_bytes(4).view(np.uint16)[:, 0],
}


def fields(packed: U8, n_bits: int) -> U8:
    """Numbers of `n_bits` (1, 2 or 4) from bytes, field by field: `(n, k)` gives `(n, k * 8 // n_bits)`."""
    if n_bits == 1:
        return np.unpackbits(contiguous(packed), axis=-1, bitorder="little")
    return np.take(_FIELDS[n_bits], contiguous(packed)).view(np.uint8)


def nibbles(qs: U8) -> U8:
    """`(n, k)` bytes as `(n, 2*k)` numbers of 4 bits: the low nibbles of each k bytes, then the high ones."""
    return join_planes(planes(qs, 4))


def join_planes(parts: Sequence[U8] | U8) -> U8:
    """Planes of `(n, k)` bytes each, C-contiguous, as `(n, n_planes*k)`: a block's own one after the other."""
    # As items of k bytes, which numpy copies at once: (n, 1) of each plane.
    return np.concatenate([part.view(f"V{part.shape[1]}") for part in parts], axis=1).view(np.uint8)


def column(scales: F32) -> F32:
    """One half or float a block, `(n,)`, as the F32 column `(n, 1)` that multiplies a block's weights."""
    return scales.astype(np.float32)[:, np.newaxis]
