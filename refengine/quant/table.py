"""F32 to blocks, as ggml's reference quantisers do it: which types, and with which function?

>>> quantize(GGMLType.Q8_0, np.arange(32, dtype=np.float32)).view(np.int8)[2:6].tolist()
[0, 4, 8, 12]
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from ggufphys.errors import UnsupportedError
from ggufphys.gguf import SIZES, GGMLType
from refengine.blocks import BLOCKS, F32, U8, Blocks
from refengine.quant import iq, k, simple

Quantizer = Callable[[F32, Blocks], None]

CHUNK_WEIGHTS: Final = 1 << 15  # at a time: a search's dozen temporaries stay in a core's L2 cache

# fmt: off
QUANTIZERS: Final[Mapping[GGMLType, Quantizer]] = {
    GGMLType.F32:  simple.f32,
    GGMLType.F16:  simple.f16,
    GGMLType.BF16: simple.bf16,
    GGMLType.Q4_0: simple.q4_0,
    GGMLType.Q4_1: simple.q4_1,
    GGMLType.Q5_0: simple.q5_0,
    GGMLType.Q5_1: simple.q5_1,
    GGMLType.Q8_0: simple.q8_0,
    GGMLType.Q8_1: simple.q8_1,
    GGMLType.Q4_K: k.q4_k,
    GGMLType.Q8_K: simple.q8_k,
    GGMLType.IQ4_NL: iq.iq4_nl,
}
# fmt: on


def quantize(ggml_type: int, x: npt.NDArray[np.floating]) -> U8:
    """`x` as blocks of `ggml_type`, bit for bit what ggml's reference quantiser gives for finite values.

    Without an importance matrix, as llama-quantize without `--imatrix`. What C leaves undefined (NaN and Inf in x, and
    values so small that the inverse of a scale overflows) gives some bytes, without warnings.

    Args:
        ggml_type: a GGMLType or its number.
        x: of any shape; converted to F32 and read in C order. Rows whose length is a multiple of the block size stay
            apart, as ggml wants them.

    Returns:
        Blocks as bytes, `(nbytes,)`.

    Raises:
        UnsupportedError: no quantiser for the type here; the message lists those that there are.
        ValueError: the elements are not a whole number of blocks.

    Source: llama.cpp 0c1e570 ggml/src/ggml.c, ggml_quantize_chunk.
    """
    return fill_blocks(QUANTIZERS, ggml_type, x)


def fill_blocks(quantizers: Mapping[GGMLType, Quantizer], ggml_type: int, x: npt.NDArray[np.floating]) -> U8:
    """`quantize` with the functions of a table. Raises as it does."""
    known = next((t for t in quantizers if t == ggml_type), None)
    if known is None:
        name = ggml_type.name if isinstance(ggml_type, GGMLType) else f"type number {ggml_type}"
        raise UnsupportedError(f"can't quantise to {name}; supported are {', '.join(t.name for t in quantizers)}")
    block_size = SIZES[known].block_size
    if x.size % block_size:
        raise ValueError(
            f"{x.size:,} values are {x.size // block_size:,} blocks of {known.name} and {x.size % block_size} values; "
            f"expected a multiple of {block_size}, the size of a block"
        )
    rows = np.ascontiguousarray(x, np.float32).reshape(-1, block_size)
    blocks = np.zeros(len(rows), BLOCKS[known])
    step = CHUNK_WEIGHTS // block_size
    with np.errstate(all="ignore"):  # scales of 0 are divided by, and the quotient not used
        for first in range(0, len(rows), step):
            quantizers[known](rows[first : first + step], blocks[first : first + step])
    return blocks.view(np.uint8)
