"""Random blocks against ggml's own dequantisation: finite, centred, of the deviation asked for."""

import numpy as np
import numpy.typing as npt
import pytest

from bench.synth.blocks import FLOATS, LAYOUTS, SIGMA, Blocks, random_blocks
from bench.synth.write import POOL_BYTES, pool_blocks
from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.plan.quantize_tables import BASE_TYPES, FALLBACKS
from refengine.peers import ggml

QUANTIZED = (*LAYOUTS, GGMLType.IQ1_M, GGMLType.MXFP4, GGMLType.NVFP4)
COARSE = {GGMLType.MXFP4: 0.42, GGMLType.NVFP4: 0.15}


def dequantized(ggml_type: GGMLType, blocks: Blocks) -> npt.NDArray[np.float64]:
    """`(n_blocks · block_size,)` weights by ggml's C function."""
    return ggml.dequantize(ggml_type, blocks.view(np.uint8).reshape(-1)).astype(np.float64)


@pytest.mark.parametrize("ggml_type", QUANTIZED, ids=lambda t: t.name)
def test_quantized_blocks(ggml_type: GGMLType) -> None:
    """Weights are finite, have mean 0 and the deviation asked for; MXFP4's and NVFP4's the nearest that is."""
    n_blocks = 1 << 20 >> (SIZES[ggml_type].block_size.bit_length() - 1)
    weights = dequantized(ggml_type, random_blocks(ggml_type, n_blocks, np.random.default_rng(1)))

    assert np.isfinite(weights).all()
    assert abs(weights.mean()) < SIGMA / 100
    assert weights.std() == pytest.approx(SIGMA, rel=COARSE.get(ggml_type, 0.01))
    assert np.abs(weights).max() < 4 * SIGMA


@pytest.mark.parametrize("ggml_type", LAYOUTS, ids=lambda t: t.name)
def test_scales_that_differ(ggml_type: GGMLType) -> None:
    """With octaves between scales they have that deviation, weights theirs still, and signs as quantisers give them."""
    n_blocks = 1 << 14
    blocks = random_blocks(ggml_type, n_blocks, np.random.default_rng(1), octaves=0.4)
    at = LAYOUTS[ggml_type].d_offset
    scales = blocks[:, at : at + 2].copy().view("<f2").astype(np.float64).ravel()
    weights = dequantized(ggml_type, blocks)

    assert np.log2(np.abs(scales)).std() == pytest.approx(0.4, rel=0.05)
    is_positive = ggml_type is GGMLType.Q8_0 or LAYOUTS[ggml_type].minimum is not None
    assert (scales > 0).mean() == pytest.approx(1.0 if is_positive else 0.5, abs=0.05)
    assert weights.std() == pytest.approx(SIGMA, rel=0.03)
    assert abs(weights.mean()) < SIGMA / 50


@pytest.mark.parametrize("ggml_type", FLOATS, ids=lambda t: t.name)
def test_floats(ggml_type: GGMLType) -> None:
    """Unquantised types hold a normal distribution."""
    blocks = random_blocks(ggml_type, 1 << 20, np.random.default_rng(1))
    match ggml_type:
        case GGMLType.BF16:
            weights = (blocks.view("<u2").astype("<u4") << 16).view("<f4")
        case GGMLType.F16:
            weights = blocks.view("<f2")
        case _:
            weights = blocks.view("<f4")

    assert weights.size == 1 << 20
    assert weights.astype(np.float64).std() == pytest.approx(SIGMA, rel=0.01)
    assert abs(weights.astype(np.float64).mean()) < SIGMA / 100


@pytest.mark.parametrize("ggml_type", [GGMLType.Q2_K, GGMLType.Q4_K, GGMLType.Q5_K], ids=lambda t: t.name)
def test_groups_are_centred(ggml_type: GGMLType) -> None:
    """Where groups have minima of their own, no group's mean is far off, which noise alone would not do."""
    group = 16 if ggml_type is GGMLType.Q2_K else 32
    weights = dequantized(ggml_type, random_blocks(ggml_type, 4096, np.random.default_rng(1)))

    assert weights.reshape(-1, group).mean(axis=1).std() < 1.1 * SIGMA / group**0.5


def test_every_type_of_every_mix() -> None:
    """There is a generator for every type that a file may hold."""
    assert set(BASE_TYPES.values()) | set(FALLBACKS.values()) <= {*QUANTIZED, *FLOATS}


@pytest.mark.parametrize("ggml_type", [*QUANTIZED, *FLOATS], ids=lambda t: t.name)
def test_pools_are_prime(ggml_type: GGMLType) -> None:
    """A pool has a prime number of blocks, and no more than it may take."""
    n = pool_blocks(ggml_type)

    assert all(n % divisor for divisor in range(2, int(n**0.5) + 1))
    assert 0.99 * POOL_BYTES < n * SIZES[ggml_type].type_size <= POOL_BYTES
