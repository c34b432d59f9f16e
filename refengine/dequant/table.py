"""Quantised bytes to F32: which types can be dequantised, and with which function?

>>> dequantize(GGMLType.Q8_0, np.float16(0.5).tobytes() + bytes(range(32)))[:4].tolist()
[0.0, 0.5, 1.0, 1.5]
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from ggufphys.errors import UnsupportedError
from ggufphys.gguf import SIZES, GGMLType
from refengine.blocks import BLOCKS, F32, Blocks, Raw
from refengine.dequant import iq, k, lookup, simple, ternary

Kernel = Callable[[Blocks, F32], None]

# Weights that a kernel gets at a time: 512 KiB of F32 stay in a core's L2 cache through a kernel's three or four
# passes over them, and numpy's overhead, about 20 us a chunk, stays small.
CHUNK_WEIGHTS: Final = 1 << 17

# fmt: off
FORMATS: Final[Mapping[GGMLType, Kernel]] = {
    GGMLType.F32:     simple.f32,
    GGMLType.F16:     simple.f16,
    GGMLType.BF16:    simple.bf16,
    GGMLType.Q1_0:    simple.q1_0,
    GGMLType.Q2_0:    simple.q2_0,
    GGMLType.Q4_0:    simple.q4_0,
    GGMLType.Q4_1:    simple.q4_1,
    GGMLType.Q5_0:    simple.q5_0,
    GGMLType.Q5_1:    simple.q5_1,
    GGMLType.Q8_0:    simple.q8_0,
    GGMLType.Q2_K:    k.q2_k,
    GGMLType.Q3_K:    k.q3_k,
    GGMLType.Q4_K:    k.q4_k,
    GGMLType.Q5_K:    k.q5_k,
    GGMLType.Q6_K:    k.q6_k,
    GGMLType.Q8_K:    k.q8_k,
    GGMLType.TQ1_0:   ternary.tq1_0,
    GGMLType.TQ2_0:   ternary.tq2_0,
    GGMLType.MXFP4:   lookup.mxfp4,
    GGMLType.NVFP4:   lookup.nvfp4,
    GGMLType.IQ4_NL:  lookup.iq4_nl,
    GGMLType.IQ4_XS:  lookup.iq4_xs,
    GGMLType.IQ1_S:   iq.iq1_s,
    GGMLType.IQ1_M:   iq.iq1_m,
    GGMLType.IQ2_XXS: iq.iq2_xxs,
    GGMLType.IQ2_XS:  iq.iq2_xs,
    GGMLType.IQ2_S:   iq.iq2_s,
    GGMLType.IQ3_XXS: iq.iq3_xxs,
    GGMLType.IQ3_S:   iq.iq3_s,
}
# fmt: on


def dequantize(ggml_type: int | str, raw: Raw, *, out: F32 | None = None) -> F32:
    """The weights that `raw` holds as blocks of `ggml_type`, in file order; bit for bit what ggml's C functions give.

    Inf and NaN scales give what IEEE arithmetic gives, without warnings.

    Args:
        ggml_type: a GGMLType, the gguf package's GGMLQuantizationType, their number, or their name in any case.
        raw: whole blocks; any alignment, for instance `GGUFFile.tensor_data(tensor)`.
        out: F32, C-contiguous, of any shape with as many elements as `raw` has weights; filled and returned.

    Returns:
        F32 of shape `(n_weights,)`, never sharing memory with `raw`; or `out`.

    Raises:
        UnsupportedError: the type is unknown or has no kernel here; the message lists those that have.
        ValueError: `raw` is not a whole number of blocks, or `out` does not fit.
    """
    known = as_supported(ggml_type)
    size = SIZES[known]
    blocks = as_blocks(known, raw)
    n_weights = len(blocks) * size.block_size
    if out is None:
        out = np.empty(n_weights, np.float32)
    elif out.dtype != np.float32 or out.size != n_weights or not (out.flags.c_contiguous and out.flags.writeable):
        flaws = ("" if out.flags.c_contiguous else ", not C-contiguous") + (
            "" if out.flags.writeable else ", read-only"
        )
        raise ValueError(
            f"out is {out.dtype} with {out.size:,} elements{flaws}; expected writable C-contiguous float32 "
            f"with {n_weights:,}, the weights in {len(blocks):,} {known.name} blocks"
        )
    w = out.reshape(len(blocks), size.block_size)
    step = CHUNK_WEIGHTS // size.block_size
    with np.errstate(all="ignore"):  # Inf * 0 is NaN in C too, and C doesn't say so
        for first in range(0, len(blocks), step):
            FORMATS[known](blocks[first : first + step], w[first : first + step])
    return out


def as_supported(ggml_type: int | str) -> GGMLType:
    """The type, if FORMATS has it. Raises UnsupportedError, listing the types that it has."""
    for known in FORMATS:
        if known == ggml_type or (isinstance(ggml_type, str) and known.name == ggml_type.upper()):
            return known
    number = ggml_type if isinstance(ggml_type, str) else f"type number {ggml_type}"
    name = ggml_type.name if isinstance(ggml_type, GGMLType) else number
    raise UnsupportedError(f"can't dequantise {name}; supported are {', '.join(t.name for t in FORMATS)}")


def as_blocks(ggml_type: GGMLType, raw: Raw) -> Blocks:
    """`raw` seen as `(n_blocks,)` structs, not copied. Raises ValueError when it ends within a block."""
    nbytes = raw.nbytes if isinstance(raw, memoryview | np.ndarray) else len(raw)
    dtype = BLOCKS[ggml_type]
    if nbytes % dtype.itemsize:
        raise ValueError(
            f"{nbytes:,} bytes of {ggml_type.name} are {nbytes // dtype.itemsize:,} blocks and "
            f"{nbytes % dtype.itemsize} bytes; expected a multiple of {dtype.itemsize}, the size of a block"
        )
    return np.frombuffer(raw, dtype=dtype)
