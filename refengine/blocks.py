"""How does a block of each tensor type lie in memory? One structured dtype a type, field for field the C struct.

`raw.view(BLOCKS[GGMLType.Q4_K])["scales"]` then reads like `x[i].scales` in C, without a copy. All fields are
little-endian, as files are. Shapes of fields are in bytes or elements, as in C.
Source: llama.cpp 0c1e570 ggml/src/ggml-common.h, block_*.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from ggufphys.gguf import SIZES, GGMLType
from ggufphys.gguf.ggml_types import QK_K

Blocks = npt.NDArray[np.void]  # (n_blocks,) of one of the dtypes below
F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int8]
Raw = bytes | bytearray | memoryview | U8  # blocks as bytes

# fmt: off
_LAYOUTS: Final[Mapping[GGMLType, list[tuple[str, str, int]]]] = {
    GGMLType.F32:  [("w", "<f4", 1)],
    GGMLType.F16:  [("w", "<f2", 1)],
    GGMLType.BF16: [("w", "<u2", 1)],       # the upper half of an F32; numpy has no such type
    GGMLType.Q1_0: [("d", "<f2", 1), ("qs", "u1", 128 // 8)],
    GGMLType.Q2_0: [("d", "<f2", 1), ("qs", "u1", 64 // 4)],
    GGMLType.Q4_0: [("d", "<f2", 1), ("qs", "u1", 32 // 2)],
    GGMLType.Q4_1: [("d", "<f2", 1), ("m", "<f2", 1), ("qs", "u1", 32 // 2)],
    GGMLType.Q5_0: [("d", "<f2", 1), ("qh", "u1", 4), ("qs", "u1", 32 // 2)],
    GGMLType.Q5_1: [("d", "<f2", 1), ("m", "<f2", 1), ("qh", "u1", 4), ("qs", "u1", 32 // 2)],
    GGMLType.Q8_0: [("d", "<f2", 1), ("qs", "i1", 32)],
    GGMLType.Q8_1: [("d", "<f2", 1), ("s", "<f2", 1), ("qs", "i1", 32)],
    # dm: d and dmin, the scales of the 6-bit (Q2_K: 4-bit) scales and minima; C has it as a union with the two
    GGMLType.Q2_K: [("scales", "u1", QK_K // 16), ("qs", "u1", QK_K // 4), ("dm", "<f2", 2)],
    GGMLType.Q3_K: [("hmask", "u1", QK_K // 8), ("qs", "u1", QK_K // 4), ("scales", "u1", 12), ("d", "<f2", 1)],
    GGMLType.Q4_K: [("dm", "<f2", 2), ("scales", "u1", 12), ("qs", "u1", QK_K // 2)],
    GGMLType.Q5_K: [("dm", "<f2", 2), ("scales", "u1", 12), ("qh", "u1", QK_K // 8), ("qs", "u1", QK_K // 2)],
    GGMLType.Q6_K: [("ql", "u1", QK_K // 2), ("qh", "u1", QK_K // 4), ("scales", "i1", QK_K // 16), ("d", "<f2", 1)],
    GGMLType.Q8_K: [("d", "<f4", 1), ("qs", "i1", QK_K), ("bsums", "<i2", QK_K // 16)],
    GGMLType.TQ1_0: [("qs", "u1", (QK_K - 4 * QK_K // 64) // 5), ("qh", "u1", QK_K // 64), ("d", "<f2", 1)],
    GGMLType.TQ2_0: [("qs", "u1", QK_K // 4), ("d", "<f2", 1)],
    GGMLType.MXFP4: [("e", "u1", 1), ("qs", "u1", 32 // 2)],
    GGMLType.NVFP4: [("d", "u1", 64 // 16), ("qs", "u1", 64 // 2)],
    GGMLType.IQ4_NL: [("d", "<f2", 1), ("qs", "u1", 32 // 2)],
    GGMLType.IQ4_XS: [("d", "<f2", 1), ("scales_h", "u1", 2), ("scales_l", "u1", QK_K // 64), ("qs", "u1", QK_K // 2)],
    GGMLType.IQ1_S: [("d", "<f2", 1), ("qs", "u1", QK_K // 8), ("qh", "<u2", QK_K // 32)],
    GGMLType.IQ1_M: [("qs", "u1", QK_K // 8), ("qh", "u1", QK_K // 16), ("scales", "<u2", QK_K // 64)],  # with d
    # qs here, scales_h above and signs below in the pieces that they are read in; in C uint16_t, uint16_t and uint8_t
    GGMLType.IQ2_XXS: [("d", "<f2", 1), ("qs", "<u4", QK_K // 16)],
    GGMLType.IQ2_XS: [("d", "<f2", 1), ("qs", "<u2", QK_K // 8), ("scales", "u1", QK_K // 32)],
    GGMLType.IQ2_S: [("d", "<f2", 1), ("qs", "u1", QK_K // 8), ("signs", "u1", QK_K // 8), ("qh", "u1", QK_K // 32),
                     ("scales", "u1", QK_K // 32)],
    GGMLType.IQ3_XXS: [("d", "<f2", 1), ("qs", "u1", QK_K // 4), ("signs", "<u4", QK_K // 32)],
    GGMLType.IQ3_S: [("d", "<f2", 1), ("qs", "u1", QK_K // 4), ("qh", "u1", QK_K // 32), ("signs", "u1", QK_K // 8),
                     ("scales", "u1", QK_K // 64)],
}
# fmt: on


def _dtype(ggml_type: GGMLType, fields: list[tuple[str, str, int]]) -> np.dtype[np.void]:
    dtype = np.dtype([(name, kind) if count == 1 else (name, kind, (count,)) for name, kind, count in fields])
    assert dtype.itemsize == SIZES[ggml_type].type_size, f"{ggml_type.name}: {dtype.itemsize} bytes"
    return dtype


BLOCKS: Final[Mapping[GGMLType, np.dtype[np.void]]] = {t: _dtype(t, fields) for t, fields in _LAYOUTS.items()}
