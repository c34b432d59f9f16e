"""dequantize: the numbers of each format, the contract around them, and C as the oracle."""

import ctypes
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufphys import UnsupportedError
from ggufphys.gguf import SIZES, GGMLType
from refengine import dequantize
from refengine.blocks import U8
from refengine.checks.compare import difference
from refengine.checks.samples import Sample, random_samples, special_sample
from refengine.dequant import table as dequant
from refengine.dequant.table import FORMATS
from refengine.peers import ggml

HALF = struct.Struct("<e")
QUARTER_SCALES = bytes([0b01_000011, 0, 0, 0, 0b10_000101, 0, 0, 0, 0x97, 0, 0, 0])  # sc0 3, m0 5, sc4 23, m4 41


def patched(length: int, **values: int) -> bytes:
    """Zero bytes with `at_7=0x3A` written at 7."""
    raw = bytearray(length)
    for name, value in values.items():
        raw[int(name.removeprefix("at_"))] = value
    return bytes(raw)


# Blocks and some of their weights, computed by hand from the C structs and the formulas in the docstrings.
BY_HAND: dict[GGMLType, tuple[bytes, dict[int, float]]] = {
    GGMLType.F32: (struct.pack("<f", -1.5), {0: -1.5}),
    GGMLType.F16: (b"\x01\x3c", {0: 1 + 2.0**-10}),
    GGMLType.BF16: (b"\xc0\x3f", {0: 1.5}),
    GGMLType.Q1_0: (HALF.pack(0.5) + patched(16, at_0=0b101), {0: 0.5, 1: -0.5, 2: 0.5, 127: -0.5}),
    GGMLType.Q2_0: (HALF.pack(2.0) + patched(16, at_0=0b11_10_01_00), {0: -2.0, 1: 0.0, 2: 2.0, 3: 4.0, 4: -2.0}),
    GGMLType.Q4_0: (HALF.pack(0.5) + patched(16, at_0=0x3A), {0: 1.0, 1: -4.0, 16: -2.5, 31: -4.0}),
    GGMLType.Q4_1: (HALF.pack(0.5) + HALF.pack(10.0) + patched(16, at_0=0x3A), {0: 15.0, 1: 10.0, 16: 11.5}),
    GGMLType.Q5_0: (
        HALF.pack(1.0) + struct.pack("<I", 1 << 0 | 1 << 17) + patched(16, at_0=0x3A),
        {0: 10.0, 1: -16.0, 16: -13.0, 17: 0.0},
    ),
    GGMLType.Q5_1: (
        HALF.pack(1.0) + HALF.pack(-1.0) + struct.pack("<I", 1 << 0 | 1 << 17) + patched(16, at_0=0x3A),
        {0: 25.0, 1: -1.0, 16: 2.0, 17: 15.0},
    ),
    GGMLType.Q8_0: (HALF.pack(0.25) + patched(32, at_0=0xFC, at_31=0x80), {0: -1.0, 1: 0.0, 31: -32.0}),
    GGMLType.Q2_K: (
        patched(16, at_0=0x21, at_2=0x03, at_6=0x10, at_15=0x4F)
        + patched(64, at_0=0b11_10_01_00, at_63=0b01_00_00_00)
        + HALF.pack(0.5)
        + HALF.pack(0.25),
        {0: -0.5, 32: 1.5, 64: 0.0, 96: -0.25, 255: 6.5},
    ),
    GGMLType.Q3_K: (  # scales, less 32: 17 for 0, -30 for 8, -16 for 12
        patched(32, at_0=1) + patched(64, at_0=3) + patched(12, at_0=0x21, at_8=0b01_00_00_11) + HALF.pack(1.0),
        {0: 51.0, 1: -68.0, 128: 120.0, 192: 64.0},
    ),
    GGMLType.Q4_K: (
        HALF.pack(0.5) + HALF.pack(0.25) + QUARTER_SCALES + patched(128, at_0=0xF2, at_64=0x06),
        {0: 1.75, 1: -1.25, 32: 0.0, 128: 58.75},
    ),
    GGMLType.Q5_K: (
        HALF.pack(0.5) + HALF.pack(0.25) + QUARTER_SCALES + patched(32, at_0=0b10001) + patched(128, at_0=2, at_64=6),
        {0: 25.75, 1: -1.25, 32: 0.0, 128: 242.75},
    ),
    GGMLType.Q6_K: (
        patched(128, at_0=0x3A, at_32=0x50)
        + patched(64, at_0=0b01_00_00_11)
        + patched(16, at_0=0xFE, at_4=1, at_6=4)
        + HALF.pack(0.5),
        {0: -26.0, 64: -14.5, 96: -22.0, 128: 0.0},
    ),
    GGMLType.TQ1_0: (  # 0xD6, 0.836 of 256, is 0.21112 in base 3
        patched(48, at_0=0xD6, at_47=0xD6) + patched(4, at_3=0xD6) + HALF.pack(0.5),
        {0: 0.5, 32: 0.0, 96: 0.0, 128: 0.5, 1: -0.5, 175: 0.5, 191: 0.0, 239: 0.5, 243: 0.5, 247: 0.0, 255: 0.0},
    ),
    GGMLType.TQ2_0: (
        patched(64, at_0=0b11_10_01_00, at_63=0b01_00_00_00) + HALF.pack(0.5),
        {0: -0.5, 32: 0.0, 64: 0.5, 96: 1.0, 255: 0.0},
    ),
    GGMLType.MXFP4: (b"\x81" + patched(16, at_0=0xE1, at_15=0x70), {0: 2.0, 1: 0.0, 16: -16.0, 31: 24.0}),
    GGMLType.NVFP4: (  # scales 1, 2**-9, 448, and the 127 that is 0
        bytes([0x38, 0x01, 0x7E, 0x7F]) + patched(32, at_0=0x91, at_8=0x72, at_16=0xF0, at_24=0x77),
        {0: 0.5, 8: -0.5, 16: 2.0**-9, 24: 6 * 2.0**-9, 32: 0.0, 40: -6 * 448.0, 48: 0.0, 56: 0.0},
    ),
    GGMLType.IQ4_NL: (HALF.pack(0.5) + patched(16, at_0=0x0F, at_15=0x87), {0: 56.5, 16: -63.5, 15: -5.0, 31: 0.5}),
    GGMLType.IQ4_XS: (  # scales, less 32: 1 for 0, -30 for 1
        HALF.pack(0.5) + b"\x02\x00" + patched(4, at_0=0x21) + patched(128, at_0=0x8F, at_16=0x0F),
        {0: 56.5, 16: 0.5, 32: 113 * -15.0, 48: -127 * -15.0},
    ),
    GGMLType.IQ1_S: (  # point 0 is -1, ..., -1; point 1 is 1, -1, ..., -1; the shifts are 1/8 and -1/8
        HALF.pack(1.0) + patched(32, at_0=1, at_31=1) + patched(16, at_1=0x20, at_15=0x80),
        {0: 5 * 1.125, 1: 5 * -0.875, 8: 5 * -0.875, 248: 0.875, 249: -1.125},
    ),
    GGMLType.IQ1_M: (  # d in nibbles 0, 0, C, 3: 0x3C00; scales 5 for the first 16, 3 for the last
        patched(32, at_0=1, at_31=1) + patched(16, at_15=0x80) + bytes([2, 0, 0, 0, 0, 0xC0, 0, 0x32]),
        {0: 5 * 1.125, 1: 5 * -0.875, 16: -0.875, 248: 3 * 0.875, 249: 3 * -1.125},
    ),
    GGMLType.IQ2_XXS: (  # grid point 1 is 43, 8, ..., 8; signs 1 are + but for the first and the last
        HALF.pack(1.0) + patched(64, at_0=1, at_4=1, at_7=0x10),
        {0: 3 / 8 * -43, 1: 3.0, 7: -3.0, 8: 3.0, 255: 1.0},
    ),
    GGMLType.IQ2_XS: (
        HALF.pack(1.0) + patched(64, at_0=1, at_1=0x02) + patched(8, at_0=0x21),
        {0: 3 / 8 * -43, 1: 3.0, 7: -3.0, 8: 3.0, 16: 5.0, 255: 1.0},
    ),
    GGMLType.IQ2_S: (  # grid point 769 is 25, 8, 25, 25, 8, 8, 43, 25
        HALF.pack(1.0) + patched(64, at_0=1, at_32=0x80) + patched(8, at_0=0b11) + patched(8, at_0=0x21, at_7=0x10),
        {0: 3 / 8 * 25, 1: 3.0, 6: 3 / 8 * 43, 7: 3 / 8 * -25, 16: 5.0, 255: 3.0},
    ),
    GGMLType.IQ3_XXS: (  # grid point 1 is 20, 4, 4, 4
        HALF.pack(1.0) + patched(64, at_1=1) + patched(32, at_0=0b11, at_3=0x10),
        {0: -3.0, 1: -3.0, 2: 3.0, 4: 3 / 4 * 20, 255: 1.0},
    ),
    GGMLType.IQ3_S: (  # grid point 1 is 3, 1, 1, 1; point 257 is 5, 7, 9, 5
        HALF.pack(1.0)
        + patched(64, at_1=1, at_63=1)
        + patched(8, at_7=0x80)
        + patched(32, at_0=0b10001)
        + patched(4, at_0=0x21, at_3=0x10),
        {0: -3.0, 1: 3.0, 4: -9.0, 32: 5.0, 252: 15.0, 253: 21.0, 254: 27.0},
    ),
    GGMLType.Q8_K: (struct.pack("<f", 0.5) + patched(256, at_0=3, at_255=0x80) + bytes(32), {0: 1.5, 255: -64.0}),
}


@pytest.mark.parametrize("ggml_type", FORMATS, ids=lambda t: t.name)
def test_by_hand(ggml_type: GGMLType) -> None:
    """A block written by hand gives the weights computed by hand, exactly."""
    raw, expected = BY_HAND[ggml_type]
    weights = dequantize(ggml_type, raw)

    assert weights.shape == (SIZES[ggml_type].block_size,)
    assert weights.dtype == np.float32
    assert expected == {i: float(weights[i]) for i in expected}


class Traits(ctypes.Structure):
    """The struct ggml_type_traits."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


def test_every_type() -> None:
    """There is a kernel for each type that ggml converts to F32, for F32, and for Q8_K, which has a function apart."""
    traits = ctypes.CFUNCTYPE(ctypes.POINTER(Traits), ctypes.c_int)(
        ("ggml_get_type_traits", ggml._llama_cpp().llama_cpp._lib)
    )

    assert set(FORMATS) == {t for t in GGMLType if traits(t).contents.to_float} | {GGMLType.F32, GGMLType.Q8_K}


@pytest.mark.parametrize("ggml_type", FORMATS, ids=lambda t: t.name)
def test_equals_c(ggml_type: GGMLType) -> None:
    """10,000 random blocks and the special ones give ggml's bits, NaNs for NaNs."""
    assert_equals_c(ggml_type, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("ggml_type", FORMATS, ids=lambda t: t.name)
def test_equals_c_on_a_million_blocks(ggml_type: GGMLType) -> None:
    """The same on 1,000,000 random blocks."""
    assert_equals_c(ggml_type, 1_000_000)


def assert_equals_c(ggml_type: GGMLType, n_blocks: int) -> None:
    n_seen = 0
    for sample in random_samples(ggml_type, n_blocks, seed=1):
        assert difference_from_c(ggml_type, sample.raw) is None
        n_seen += sample.raw.size // SIZES[ggml_type].type_size

    assert n_seen == n_blocks
    assert difference_from_c(ggml_type, special_sample(ggml_type).raw) is None


def test_finite_halves_equal_c() -> None:
    """Halves without Inf and NaN, for which there is a faster way, give ggml's bits, subnormals and both zeros too."""
    halves = np.arange(1 << 16, dtype=np.uint16)
    finite = halves[halves & 0x7C00 != 0x7C00].view(np.uint8)

    assert difference_from_c(GGMLType.F16, finite) is None


def difference_from_c(ggml_type: GGMLType, raw: U8) -> str | None:
    ours, theirs = dequantize(ggml_type, raw), ggml.dequantize(ggml_type, raw)
    return difference(ours, theirs, Sample("raw", 0, raw), SIZES[ggml_type].block_size).first


def some_blocks(ggml_type: GGMLType, n_blocks: int) -> U8:
    return np.concatenate([sample.raw for sample in random_samples(ggml_type, n_blocks, seed=2)])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_bytes_equal_c(data: st.DataObject) -> None:
    """Whatever bytes hypothesis finds, our bits are ggml's."""
    ggml_type = data.draw(st.sampled_from(list(FORMATS)))
    type_size = SIZES[ggml_type].type_size
    n_blocks = data.draw(st.integers(0, 3))
    raw = np.frombuffer(data.draw(st.binary(min_size=n_blocks * type_size, max_size=n_blocks * type_size)), np.uint8)

    assert difference_from_c(ggml_type, raw) is None


@pytest.mark.parametrize("ggml_type", FORMATS, ids=lambda t: t.name)
def test_no_warnings(ggml_type: GGMLType) -> None:
    """Inf and NaN scales raise nothing, whatever the caller has told numpy to raise."""
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        weights = dequantize(ggml_type, special_sample(ggml_type).raw)

    assert np.isnan(weights).any() or ggml_type in (GGMLType.MXFP4, GGMLType.NVFP4)  # whose scales are never NaN


@pytest.mark.parametrize("ggml_type", FORMATS, ids=lambda t: t.name)
def test_chunks(ggml_type: GGMLType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a chunk ends changes nothing: whole, by odd chunks, and block by block agree."""
    size = SIZES[ggml_type]
    raw = some_blocks(ggml_type, 23)
    whole = dequantize(ggml_type, raw)
    alone = [dequantize(ggml_type, raw[i * size.type_size : (i + 1) * size.type_size]) for i in range(23)]
    monkeypatch.setattr(dequant, "CHUNK_WEIGHTS", 7 * size.block_size)

    assert whole.tobytes() == dequantize(ggml_type, raw).tobytes()
    assert whole.tobytes() == np.concatenate(alone).tobytes()


def test_more_than_a_chunk() -> None:
    """A tensor of several chunks of the real size equals C."""
    n_blocks = dequant.CHUNK_WEIGHTS // 32 * 2 + 5

    assert difference_from_c(GGMLType.Q8_0, some_blocks(GGMLType.Q8_0, n_blocks)) is None


@pytest.mark.parametrize("ggml_type", FORMATS, ids=lambda t: t.name)
def test_any_buffer(ggml_type: GGMLType) -> None:
    """bytes, bytearray, memoryview and arrays will do, at any alignment; the result never shares their memory."""
    raw = some_blocks(ggml_type, 3)
    shifted = memoryview(b"x" + raw.tobytes())[1:]
    expected = dequantize(ggml_type, raw).tobytes()

    for given_as in (raw.tobytes(), bytearray(raw), shifted, raw.reshape(3, -1)):
        assert expected == dequantize(ggml_type, given_as).tobytes()
    assert not np.shares_memory(dequantize(ggml_type, raw), raw)


def test_out() -> None:
    """`out` of any shape is filled and returned."""
    raw = some_blocks(GGMLType.Q4_K, 4)
    out = np.full((2, 2, 256), np.nan, np.float32)

    assert dequantize(GGMLType.Q4_K, raw, out=out) is out
    assert dequantize(GGMLType.Q4_K, raw).tobytes() == out.tobytes()


@pytest.mark.parametrize(
    ("out", "found"),
    [
        (np.empty(64, np.float64), "out is float64 with 64 elements"),
        (np.empty(63, np.float32), "out is float32 with 63 elements"),
        (np.empty(128, np.float32)[::2], "out is float32 with 64 elements, not C-contiguous"),
        (np.frombuffer(bytes(256), np.float32), "out is float32 with 64 elements, read-only"),
    ],
)
def test_out_that_does_not_fit(out: np.ndarray[tuple[int], np.dtype[np.float32]], found: str) -> None:
    """A wrong dtype, size or layout is refused with what was found and expected."""
    with pytest.raises(ValueError, match=rf"{found}; expected .* 64, the weights in 2 Q8_0 blocks"):
        dequantize(GGMLType.Q8_0, bytes(68), out=out)


def test_partial_block() -> None:
    """Bytes that end within a block are refused with the numbers."""
    with pytest.raises(ValueError, match=r"1,441 bytes of Q4_K are 10 blocks and 1 bytes; expected a multiple of 144"):
        dequantize(GGMLType.Q4_K, bytes(1441))


@pytest.mark.parametrize(("ggml_type", "name"), [(GGMLType.I32, "I32"), (GGMLType.Q8_1, "Q8_1"), (99, "number 99")])
def test_unsupported(ggml_type: int, name: str) -> None:
    """A type without a kernel is named, with the list of those that have one."""
    with pytest.raises(UnsupportedError, match=rf"{name}; supported are F32, F16, .*Q4_K"):
        dequantize(ggml_type, b"")


def test_type_by_number() -> None:
    """A type number works like the enum, and no bytes give no weights."""
    assert dequantize(0, struct.pack("<f", 1)).tolist() == [1.0]
    assert dequantize(12, b"").shape == (0,)


def test_ways_to_name_a_type() -> None:
    """A type is named by our enumeration, the gguf package's, a number, or its name in any case, all to one end."""
    gguf = pytest.importorskip("gguf")
    raw = bytes(range(144)) * 2
    expected = dequantize(GGMLType.Q4_K, raw)

    for ggml_type in (12, "Q4_K", "q4_K", gguf.GGMLQuantizationType.Q4_K):
        assert np.array_equal(dequantize(ggml_type, raw), expected, equal_nan=True)
    with pytest.raises(UnsupportedError, match="can't dequantise Q4_Z; supported are "):
        dequantize("Q4_Z", raw)
