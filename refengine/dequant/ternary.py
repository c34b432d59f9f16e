"""How do the ternary types, each weight -1, 0 or 1 times a scale, become F32?

Kernels as in `simple.py`, on super-blocks of 256 weights.
Source: llama.cpp 0c1e570 ggml/src/ggml-quants.c, dequantize_row_tq1_0, dequantize_row_tq2_0.
"""

from typing import Final

import numpy as np

from refengine.blocks import F32, Blocks
from refengine.dequant.unpack import column, planes

POWERS: Final = np.array([1, 3, 9, 27, 81], np.uint8).reshape(5, 1, 1)


def tq1_0(blocks: Blocks, w: F32) -> None:
    """`w = d * (q - 1)`, five q of 3 levels in a byte, as a fraction of 256 in base 3: `0.qqqqq`.

    Times 3**i, less whole multiples of 256, the byte is the fraction that starts with digit i. The digits of 32 bytes
    are weights in planes, then those of 16 bytes, then four digits of each of 4 bytes.
    """
    fractions = np.concatenate([blocks["qs"], blocks["qh"]], axis=1) * POWERS  # (5, n, 52), modulo 256
    digits = (fractions > 85).view(np.int8)  # at least a third, 256/3
    digits += (fractions > 170).view(np.int8)
    digits -= 1
    q = np.empty(w.shape, np.int8)
    for planes_of, at in ((digits[:, :, :32], 0), (digits[:, :, 32:48], 160), (digits[:4, :, 48:], 240)):
        items = planes_of.view(f"V{planes_of.shape[2]}")[:, :, 0]  # (plane, n), a plane's bytes in one
        q[:, at : at + items.itemsize * len(items)].view(items.dtype)[:] = items.T
    w[:] = q
    w *= column(blocks["d"])


def tq2_0(blocks: Blocks, w: F32) -> None:
    """`w = d * (q - 1)`, q of 2 bits, 0 to 3; each half's 32 bytes hold four planes."""
    q = planes(blocks["qs"], 2).reshape(4, -1, 2, 32)  # (plane, n, half, 32)
    q -= 1
    w.reshape(-1, 2, 4, 32).transpose(2, 0, 1, 3)[:] = q.view(np.int8)
    w *= column(blocks["d"])
