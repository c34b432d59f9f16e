"""Random blocks of every type, valid and of sane scale: what would N(0, σ) look like quantised, near enough to run?

A block of random bits is a valid block of any type but for its scale, which must be finite: so each block is random
bits with a scale set over them, of the size that gives the weights the standard deviation wanted and of random sign,
which makes their mean zero. Types with a minimum (w = d·q − m) get the minimum that centres each group of weights.

Scales of a model's tensor differ from block to block, and kernels look them up in a table of all 65,536 halves as
floats, of which a model with few scales would need next to nothing: on a Zen 4 a product of Q4_1 took 1.3 to 1.5 times
as long with a model's scales as with two.

Source: llama.cpp 0c1e570 ggml/src/ggml-common.h, block_* (where a block's scale lies); ggml-cpu/simd-mappings.h,
ggml_lookup_fp16_to_fp32, ggml_table_f32_f16; `spread` was measured with ggml's own dequantisation
(tests/bench/synth/test_blocks.py measures it again).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ggufphys.gguf.ggml_types import SIZES, GGMLType

Blocks = npt.NDArray[np.uint8]  # (n_blocks, type_size)

SIGMA: Final = 0.02  # what models are initialised with, and stay near
OCTAVES: Final = 0.41
"""The standard deviation of the binary logarithm of a tensor's scales: half of the weights of three published files
(SmolLM2-135M Q4_1, gemma-3-270m and qwen2.5-coder-0.5b Q4_K_M) have more; most tensors have 0.3 to 0.6."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a type's scale is and what it does.

    `spread` is the standard deviation of a block's weights at d = 1, its other bits random; `minimum` is what the
    block's minimum must be for d = 1, and lies behind d.
    """

    d_offset: int
    spread: float
    minimum: float | None = None


# fmt: off
LAYOUTS: Final[dict[GGMLType, Layout]] = {
    GGMLType.Q1_0:    Layout(0,   1.0),
    GGMLType.Q2_0:    Layout(0,   1.225),
    GGMLType.Q4_0:    Layout(0,   4.637),
    GGMLType.Q4_1:    Layout(0,   4.61,   -7.5),
    GGMLType.Q5_0:    Layout(0,   9.243),
    GGMLType.Q5_1:    Layout(0,   9.233,  -15.5),
    GGMLType.Q8_0:    Layout(0,   73.9),
    GGMLType.Q2_K:    Layout(80,  9.83,   1.5),
    GGMLType.Q3_K:    Layout(108, 43.35),
    GGMLType.Q4_K:    Layout(0,   168.4,  7.5),
    GGMLType.Q5_K:    Layout(0,   336.7,  15.5),
    GGMLType.Q6_K:    Layout(208, 1365.0),
    GGMLType.TQ1_0:   Layout(52,  0.817),
    GGMLType.TQ2_0:   Layout(64,  1.225),
    GGMLType.IQ1_S:   Layout(0,   7.2),
    GGMLType.IQ2_XXS: Layout(0,   53.3),
    GGMLType.IQ2_XS:  Layout(0,   55.9),
    GGMLType.IQ2_S:   Layout(0,   56.5),
    GGMLType.IQ3_XXS: Layout(0,   142.4),
    GGMLType.IQ3_S:   Layout(0,   140.0),
    GGMLType.IQ4_NL:  Layout(0,   67.4),
    GGMLType.IQ4_XS:  Layout(0,   1245.0),
}
# fmt: on
SPREAD_IQ1_M: Final = 7.2
SPREAD_MXFP4: Final = 1.719e-38  # at exponent 0
SPREAD_NVFP4: Final = 5.856 * 2.0**-10  # at the least scale, whose multiples come first


def random_blocks(
    ggml_type: GGMLType, n_blocks: int, rng: np.random.Generator, sigma: float = SIGMA, *, octaves: float = 0.0
) -> Blocks:
    """`(n_blocks, type_size)` bytes whose weights have mean 0 and standard deviation `sigma`.

    Scales are all of one size, or differ by so many `octaves` (`OCTAVES` as a model's do); those that quantisers make
    positive are positive then. MXFP4's scales are powers of two and NVFP4's have three bits, so their deviations are
    the nearest that these allow.
    """
    size = SIZES[ggml_type]
    if ggml_type in FLOATS:
        weights = rng.standard_normal((n_blocks, size.block_size), dtype=np.float32) * np.float32(sigma)
        return FLOATS[ggml_type](weights).reshape(n_blocks, size.type_size)
    blocks = rng.integers(0, 256, size=(n_blocks, size.type_size), dtype=np.uint8)
    if ggml_type is GGMLType.MXFP4:
        blocks[:, 0] = _mxfp4_exponent(sigma)
        return blocks
    if ggml_type is GGMLType.NVFP4:
        blocks[:, :4] = _nvfp4_scale(sigma)
        return blocks
    if ggml_type is GGMLType.IQ1_M:
        _set_iq1_m_scale(blocks, _signed(_scales(sigma / SPREAD_IQ1_M, n_blocks, rng, octaves), rng))
        return blocks
    layout = LAYOUTS[ggml_type]
    d = _scales(sigma / layout.spread, n_blocks, rng, octaves)
    if not (octaves and (ggml_type is GGMLType.Q8_0 or layout.minimum is not None)):  # a maximum, a range by the levels
        d = _signed(d, rng)
    _set_half(blocks, layout.d_offset, d)
    if layout.minimum is not None:
        _set_half(blocks, layout.d_offset + 2, d * np.float32(layout.minimum))
        _centre_groups(ggml_type, blocks)
    return blocks


def _bf16(weights: npt.NDArray[np.float32]) -> Blocks:
    """The upper half of each float32: rounding toward zero is good enough for noise."""
    return np.ascontiguousarray(weights.view(np.uint8).reshape(*weights.shape, 4)[..., 2:])


FLOATS: Final[dict[GGMLType, Callable[[npt.NDArray[np.float32]], Blocks]]] = {
    GGMLType.F32: lambda weights: weights.view(np.uint8),
    GGMLType.F16: lambda weights: weights.astype(np.float16).view(np.uint8),
    GGMLType.BF16: _bf16,
}


def _scales(magnitude: float, n_blocks: int, rng: np.random.Generator, octaves: float) -> npt.NDArray[np.float32]:
    """`(n_blocks,)`, positive, whose squares have the mean of the magnitude's."""
    if not octaves:
        return np.full(n_blocks, magnitude, np.float32)
    deviation = octaves * np.log(2)
    logs = rng.normal(np.log(magnitude) - deviation**2, deviation, n_blocks)
    return np.exp(logs).astype(np.float32)


def _signed(scales: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The scales with random signs."""
    return np.where(rng.integers(0, 2, len(scales)) == 0, scales, -scales)


def _set_half(blocks: Blocks, offset: int, values: npt.NDArray[np.float32]) -> None:
    blocks[:, offset : offset + 2] = values.astype("<f2").view(np.uint8).reshape(-1, 2)


def _centre_groups(ggml_type: GGMLType, blocks: Blocks) -> None:
    """Give each group of a K-block the same number as scale and as minimum, so that the group's mean is zero."""
    if ggml_type is GGMLType.Q2_K:  # scales: a nibble of scale, a nibble of minimum
        blocks[:, :16] = (blocks[:, :16] & 0x0F) * 0x11
    elif ggml_type in (GGMLType.Q4_K, GGMLType.Q5_K):  # 12 bytes: 4 of scales, 4 of minima, 4 shared as nibbles
        blocks[:, 8:12] = blocks[:, 4:8]
        blocks[:, 12:16] = (blocks[:, 12:16] & 0x0F) * 0x11


def _set_iq1_m_scale(blocks: Blocks, values: npt.NDArray[np.float32]) -> None:
    """IQ1_M has no field for its scale: the half float lies in the upper nibbles of its last four 16-bit words."""
    halves = values.astype("<f2").view(np.uint16)
    for word in range(4):
        nibble = ((halves >> (4 * word)) & 0x0F).astype(np.uint8)
        high = 48 + 2 * word + 1
        blocks[:, high] = (blocks[:, high] & 0x0F) | (nibble << 4)


def _mxfp4_exponent(sigma: float) -> int:
    return int(np.clip(np.rint(np.log2(sigma / SPREAD_MXFP4)), 0, 254))


def _nvfp4_scale(sigma: float) -> int:
    """The number of the nearest of the positive UE4M3 scales: eighths of powers of two, behind seven even steps."""
    scales = [(number % 8 + 8 * (number > 7)) * 2.0 ** max(0, number // 8 - 1) for number in range(0x7F)]
    return int(np.argmin(np.abs(np.array(scales) - sigma / SPREAD_NVFP4)))
