"""quantize: C as the oracle, blocks by hand, and the contract around them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ggufphys import UnsupportedError
from ggufphys.gguf import SIZES, GGMLType
from refengine import dequantize, quantize
from refengine.blocks import BLOCKS, F32
from refengine.peers import ggml
from refengine.quant.table import QUANTIZERS
from tests.refengine.quant.values import value_samples


@pytest.mark.parametrize("ggml_type", QUANTIZERS, ids=lambda t: t.name)
def test_equals_c(ggml_type: GGMLType) -> None:
    """Blocks of every sort of finite values are those of ggml's reference quantiser, bit for bit."""
    assert_equals_c(ggml_type, 200)


@pytest.mark.slow
@pytest.mark.parametrize("ggml_type", QUANTIZERS, ids=lambda t: t.name)
def test_equals_c_on_a_million_blocks(ggml_type: GGMLType) -> None:
    """The same on 7 sorts of 150,000 rows each, more than a million blocks of 256."""
    for seed in range(15):
        assert_equals_c(ggml_type, 10_000, seed)


def assert_equals_c(ggml_type: GGMLType, n_rows: int, seed: int = 0) -> None:
    for name, x in value_samples(n_rows, seed):
        type_size = SIZES[ggml_type].type_size
        ours, theirs = (raw.reshape(-1, type_size) for raw in (quantize(ggml_type, x), ggml.quantize(ggml_type, x)))
        if ggml_type is GGMLType.IQ4_NL:  # where d is 0, C leaves q as they were in the block before
            ours, theirs = (np.where(raw[:, :2].any(axis=1, keepdims=True), raw, 0) for raw in (ours, theirs))
        different = np.flatnonzero((ours != theirs).any(axis=1))

        assert len(different) == 0, f"{name}: {len(different)} blocks of {len(ours)}, the first {different[0]}"


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list(QUANTIZERS)),
    hnp.arrays(np.float32, 256, elements=st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False)),
)
def test_any_values_equal_c(ggml_type: GGMLType, x: F32) -> None:
    """Whatever values hypothesis finds, our bytes are ggml's."""
    if ggml_type is GGMLType.IQ4_NL:
        x = x + np.float32(np.copysign(1, x))  # no blocks of zeros, for which C leaves q as they were
    assert quantize(ggml_type, x).tobytes() == ggml.quantize(ggml_type, x).tobytes()


def test_q8_0_by_hand() -> None:
    """The largest magnitude becomes 127; ties go away from zero."""
    x = np.zeros(32, np.float32)
    x[:4] = 127, 2.5, -2.5, 1.49
    (block,) = quantize(GGMLType.Q8_0, x).view(BLOCKS[GGMLType.Q8_0])

    assert block["d"] == 1
    assert block["qs"][:5].tolist() == [127, 3, -3, 1, 0]


def test_q8_k_by_hand() -> None:
    """The value farthest from zero becomes -127; ties go to even; the sums are of 16."""
    x = np.zeros(256, np.float32)
    x[:3], x[255] = (127, 2.5, -2.5), 1
    (block,) = quantize(GGMLType.Q8_K, x).view(BLOCKS[GGMLType.Q8_K])

    assert block["d"] == -1
    assert block["qs"][:3].tolist() == [-127, -2, 2]
    assert block["bsums"].tolist() == [-127, *[0] * 14, -1]


def test_q4_k_by_hand() -> None:
    """Sixteen levels evenly spaced come out as they are, up to the rounding of the scales."""
    x = np.tile(np.arange(16, dtype=np.float32), 16) - 4
    (block,) = quantize(GGMLType.Q4_K, x).view(BLOCKS[GGMLType.Q4_K])

    assert block["dm"].tolist() == [float(np.float16(1 / 63)), float(np.float16(4 / 63))]
    assert block["qs"][:16].tolist() == [i | i << 4 for i in range(16)]


def test_floats_by_hand() -> None:
    """Halves and bfloats: ties to even, overflow to Inf, NaNs stay NaN."""
    x = np.array([1 + 2**-11, 1 + 3 * 2**-11, 65520, np.nan, -np.inf], np.float32)
    halves = quantize(GGMLType.F16, x).view(np.float16)
    bfloats = quantize(GGMLType.BF16, np.array([1 + 2**-8, 1 + 3 * 2**-8, np.nan], np.float32)).view(np.uint16)

    assert halves[:3].tolist() == [1, 1 + 2**-9, np.inf]
    assert np.isnan(halves[3])
    assert halves[4] == -np.inf
    assert bfloats.tolist() == [0x3F80, 0x3F82, 0x7FC0]


@pytest.mark.parametrize(
    ("ggml_type", "error"),
    [(GGMLType.Q4_0, 0.01), (GGMLType.Q5_1, 2e-3), (GGMLType.Q8_0, 1e-4), (GGMLType.Q4_K, 0.01), (GGMLType.Q8_K, 1e-4)],
)
def test_round_trip(ggml_type: GGMLType, error: float) -> None:
    """Dequantised blocks are near the values: a mean squared error far below theirs."""
    x = np.random.default_rng(0).standard_normal((4, 1024)).astype(np.float32)
    back = dequantize(ggml_type, quantize(ggml_type, x)).reshape(x.shape)

    assert 0 < np.mean((back - x) ** 2) < error


def test_any_shape_and_dtype() -> None:
    """Strided and float64 input is converted; chunks change nothing; nothing gives nothing."""
    x = np.random.default_rng(1).standard_normal((300, 512))
    expected = quantize(GGMLType.Q4_K, x.astype(np.float32).reshape(-1)).tobytes()

    assert expected == quantize(GGMLType.Q4_K, x).tobytes()
    assert expected == quantize(GGMLType.Q4_K, np.asfortranarray(x)).tobytes()
    assert expected[: 144 * 2] == quantize(12, x[0]).tobytes()
    assert quantize(GGMLType.Q4_K, x[:0]).shape == (0,)


def test_no_warnings_of_what_c_leaves_undefined() -> None:
    """NaN, Inf and tiny values give bytes and no warnings, whatever the caller has told numpy to raise."""
    x = np.array([np.nan, np.inf, -np.inf, 1e-45, 0, 1, 3e38, -1] * 32, np.float32)
    with np.errstate(all="raise"):
        for ggml_type in QUANTIZERS:
            assert len(quantize(ggml_type, x)) == 256 // SIZES[ggml_type].block_size * SIZES[ggml_type].type_size


def test_refusals() -> None:
    """A type without a quantiser and a partial block are refused with the numbers."""
    with pytest.raises(UnsupportedError, match=r"can't quantise to IQ2_XS; supported are F32, .*Q4_K"):
        quantize(GGMLType.IQ2_XS, np.zeros(256, np.float32))
    with pytest.raises(
        ValueError, match=r"1,000 values are 3 blocks of Q4_K and 232 values; expected a multiple of 256"
    ):
        quantize(GGMLType.Q4_K, np.zeros(1000, np.float32))
