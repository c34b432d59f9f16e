"""Which blocks are worth comparing? Random ones, ones with special scales, and a spread of a model's own.

Everything here is a function of its arguments: the same seed and the same file give the same blocks.
"""

from collections.abc import Iterator
from itertools import product
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ggufphys.gguf import SIZES, GGMLType, TensorInfo
from refengine.blocks import BLOCKS, U8, Blocks

BATCH_WEIGHTS: Final = 1 << 20  # random weights that are compared in one go
PIECE_BYTES: Final = 128 << 10  # of a tensor, that are compared in one go

# Bit patterns: +-0, smallest and largest subnormal, smallest normal, +-1, +-largest, +-Inf, quiet and signalling NaN.
_SPECIAL: Final = {
    "<f2": (
        0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0xFD01,
    ),
    "<f4": (
        0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000, 0x3F800000, 0xBF800000, 0x7F7FFFFF,
        0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFA00001,
    ),
}  # fmt: skip
_OTHER_SCALES: Final = {
    GGMLType.MXFP4: tuple(range(256)),
    GGMLType.NVFP4: tuple(range(256)),
    GGMLType.IQ1_M: _SPECIAL["<f2"],
}
_FILLS: Final = (0x00, 0xFF, 0x80, 0x7F, 0x0F, 0xF0, 0xAA, 0x55)


class Sample(NamedTuple):
    """Whole blocks, and where they are from: a name and the number of their first block there."""

    name: str
    first_block: int
    raw: U8


def random_samples(ggml_type: GGMLType, n_blocks: int, seed: int) -> Iterator[Sample]:
    """Blocks of uniformly random bits, some thousands at a time: one half in 32 among the scales is Inf or NaN."""
    size = SIZES[ggml_type]
    rng = np.random.default_rng((seed, int(ggml_type)))
    step = BATCH_WEIGHTS // size.block_size
    for first in range(0, n_blocks, step):
        raw = rng.bytes(min(step, n_blocks - first) * size.type_size)
        yield Sample("random", first, np.frombuffer(raw, np.uint8))


def special_sample(ggml_type: GGMLType) -> Sample:
    """Every combination of special scales, each with quants of one byte repeated and of bytes that count up.

    Scales of 8 bits take all their values. The types of 16 bits without scales give all their 65,536 values instead.
    """
    dtype = BLOCKS[ggml_type]
    if dtype.itemsize == 2:
        return Sample("special", 0, np.arange(1 << 16, dtype="<u2").view(np.uint8))
    scales = _scale_slots(dtype)
    patterns: list[tuple[int, ...]] = [_SPECIAL[kind] for kind, _ in scales] or [_OTHER_SCALES[ggml_type]]
    combinations = np.array(list(product(*patterns)), dtype=np.uint32)
    counting = np.arange(dtype.itemsize, dtype=np.uint8) * 37
    fills = [np.full(dtype.itemsize, fill, np.uint8) for fill in _FILLS] + [counting]
    raw = np.repeat(np.stack(fills), len(combinations), axis=0)  # (n_fills * n_combinations, type_size)
    combinations = np.tile(combinations, (len(fills), 1))
    for column, (kind, offset) in enumerate(scales):
        values = combinations[:, column].astype(kind.replace("f", "u"))
        raw[:, offset : offset + values.itemsize] = values.view(np.uint8).reshape(-1, values.itemsize)
    if not scales:
        _set_other_scale(ggml_type, raw.view(dtype)[:, 0], combinations[:, 0])
    return Sample("special", 0, raw.reshape(-1))


def _set_other_scale(ggml_type: GGMLType, blocks: Blocks, patterns: npt.NDArray[np.uint32]) -> None:
    """Write scales that are no field of floats: bytes, or a half in the upper 4 bits of four words."""
    match ggml_type:
        case GGMLType.MXFP4:
            blocks["e"] = patterns
        case GGMLType.NVFP4:
            blocks["d"] = patterns[:, np.newaxis] + np.arange(4)  # modulo 256: four different ones
        case GGMLType.IQ1_M:
            nibbles = patterns[:, np.newaxis] >> 4 * np.arange(4) & 15
            blocks["scales"] = blocks["scales"] & 0x0FFF | nibbles << 12


def _scale_slots(dtype: np.dtype[np.void]) -> list[tuple[str, int]]:
    """Kind and offset of each half and float in a block."""
    slots = []
    for field, offset in ((dtype[name], dtype.fields[name][1]) for name in dtype.names or () if dtype.fields):
        if field.base.kind == "f":
            slots += [(field.base.str, offset + at) for at in range(0, field.itemsize, field.base.itemsize)]
    return slots


def tensor_samples(tensor: TensorInfo, data: memoryview, share: float) -> Iterator[Sample]:
    """About `share` (0 to 1) of a tensor's `data`, in pieces spread evenly from its first block to its last.

    At least the first and the last `PIECE_BYTES`; with a share of 1, everything. The bytes are copies.
    """
    type_size = SIZES[GGMLType(tensor.ggml_type)].type_size
    n_blocks = len(data) // type_size
    length = PIECE_BYTES // type_size
    n_whole = -(-n_blocks // length)  # pieces that cover the tensor
    n_pieces = min(n_whole, max(2, round(n_whole * share)))
    for i in range(n_pieces):
        first = i * length if n_pieces == n_whole else i * (n_blocks - length) // (n_pieces - 1)
        piece = data[first * type_size : min(first + length, n_blocks) * type_size]
        yield Sample(tensor.name, first, np.frombuffer(piece, np.uint8).copy())
