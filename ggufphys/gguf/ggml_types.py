"""Which tensor types does ggml have, and how many bytes does a block of each take?

Sizes are written as the sum of the C struct's fields, so that a row can be checked against the struct by eye.
Source: llama.cpp 0c1e570 ggml/include/ggml.h, ggml_type; ggml/src/ggml-common.h, block_*; ggml/src/ggml.c, type_traits.
"""

from enum import IntEnum
from typing import Final

from ggufphys.frozen import dataclass

QK_K: Final = 256  # weights in a super-block of the K- and IQ-types


class GGMLType(IntEnum):
    """ggml's tensor types by their number in a file. Numbers missing here were removed from the format."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42


@dataclass(frozen=True, slots=True)
class TypeSize:
    """Weights in a block and bytes of a block."""

    block_size: int
    type_size: int

    @property
    def bpw(self) -> float:
        """Bits per weight."""
        return 8 * self.type_size / self.block_size


# fmt: off
SIZES: Final[dict[GGMLType, TypeSize]] = {
    GGMLType.F32:     TypeSize(1, 4),
    GGMLType.F16:     TypeSize(1, 2),
    GGMLType.BF16:    TypeSize(1, 2),
    GGMLType.F64:     TypeSize(1, 8),
    GGMLType.I8:      TypeSize(1, 1),
    GGMLType.I16:     TypeSize(1, 2),
    GGMLType.I32:     TypeSize(1, 4),
    GGMLType.I64:     TypeSize(1, 8),
    #                                  d            qs
    GGMLType.Q1_0:    TypeSize(128,    2          + 128 // 8),
    GGMLType.Q2_0:    TypeSize(64,     2          + 64 // 4),
    GGMLType.Q4_0:    TypeSize(32,     2          + 32 // 2),
    GGMLType.Q4_1:    TypeSize(32,     2 + 2      + 32 // 2),               # d, m
    GGMLType.Q5_0:    TypeSize(32,     2      + 4 + 32 // 2),               # d, qh
    GGMLType.Q5_1:    TypeSize(32,     2 + 2  + 4 + 32 // 2),               # d, m, qh
    GGMLType.Q8_0:    TypeSize(32,     2          + 32),
    GGMLType.Q8_1:    TypeSize(32,     2 + 2      + 32),                    # d, s
    GGMLType.MXFP4:   TypeSize(32,     1          + 32 // 2),               # e: E8M0 exponent
    GGMLType.NVFP4:   TypeSize(64,     64 // 16   + 64 // 2),               # d: a UE4M3 scale per 16 weights
    #                                  d, dmin   scales        high bits     low bits
    GGMLType.Q2_K:    TypeSize(QK_K,   2 + 2   + QK_K // 16                + QK_K // 4),
    GGMLType.Q3_K:    TypeSize(QK_K,   2       + 12          + QK_K // 8   + QK_K // 4),
    GGMLType.Q4_K:    TypeSize(QK_K,   2 + 2   + 12                        + QK_K // 2),
    GGMLType.Q5_K:    TypeSize(QK_K,   2 + 2   + 12          + QK_K // 8   + QK_K // 2),
    GGMLType.Q6_K:    TypeSize(QK_K,   2       + QK_K // 16  + QK_K // 4   + QK_K // 2),
    GGMLType.Q8_K:    TypeSize(QK_K,   4       + QK_K        + QK_K // 16 * 2),            # f32 d, qs, bsums
    GGMLType.TQ1_0:   TypeSize(QK_K,   2       + QK_K // 64  + (QK_K - 4 * QK_K // 64) // 5),
    GGMLType.TQ2_0:   TypeSize(QK_K,   2       + QK_K // 4),
    #                                  d         qs              the rest: qh, signs, scales
    GGMLType.IQ1_S:   TypeSize(QK_K,   2       + QK_K // 8     + QK_K // 16),
    GGMLType.IQ1_M:   TypeSize(QK_K,             QK_K // 8     + QK_K // 16 + QK_K // 32),
    GGMLType.IQ2_XXS: TypeSize(QK_K,   2       + QK_K // 8 * 2),
    GGMLType.IQ2_XS:  TypeSize(QK_K,   2       + QK_K // 8 * 2 + QK_K // 32),
    GGMLType.IQ2_S:   TypeSize(QK_K,   2       + QK_K // 4     + QK_K // 32 + QK_K // 32),
    GGMLType.IQ3_XXS: TypeSize(QK_K,   2       + 3 * QK_K // 8),
    GGMLType.IQ3_S:   TypeSize(QK_K,   2       + QK_K // 4     + QK_K // 32 + QK_K // 8 + QK_K // 64),
    GGMLType.IQ4_NL:  TypeSize(32,     2       + 32 // 2),
    GGMLType.IQ4_XS:  TypeSize(QK_K,   2       + QK_K // 2     + 2 + QK_K // 64),
}

# llama.cpp 0c1e570 include/llama.h, llama_ftype; names as llama-quantize takes them.
FILE_TYPES: Final[dict[int, str]] = {
    0: "F32",      1: "F16",      2: "Q4_0",     3: "Q4_1",    7: "Q8_0",     8: "Q5_0",     9: "Q5_1",
    10: "Q2_K",    11: "Q3_K_S",  12: "Q3_K_M",  13: "Q3_K_L", 14: "Q4_K_S",  15: "Q4_K_M",  16: "Q5_K_S",
    17: "Q5_K_M",  18: "Q6_K",    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S",  22: "IQ3_XS",  23: "IQ3_XXS",
    24: "IQ1_S",   25: "IQ4_NL",  26: "IQ3_S",   27: "IQ3_M",  28: "IQ2_S",   29: "IQ2_M",   30: "IQ4_XS",
    31: "IQ1_M",   32: "BF16",    36: "TQ1_0",   37: "TQ2_0",  38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0",
    41: "Q2_0",
}
# fmt: on
