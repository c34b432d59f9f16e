"""Halves, converted and rounded by arithmetic."""

import numpy as np

from refengine.arrays import f16_to_f32, f32_to_f16, rounded_to_f16


def test_every_half_becomes_its_float() -> None:
    """All 65,536 halves give what a cast gives, infinities and what is no number included."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]

    assert np.array_equal(f16_to_f32(finite).view(np.uint32), finite.astype(np.float32).view(np.uint32))
    assert np.array_equal(f16_to_f32(halves), halves.astype(np.float32), equal_nan=True)

    infinite = halves[~np.isnan(halves)]

    assert np.array_equal(f16_to_f32(infinite).view(np.uint32), infinite.astype(np.float32).view(np.uint32))


def test_rounding_is_that_of_casts() -> None:
    """Every half, all that lies in the middle between two, what stands beside that, and random bits: as casts round."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[:-1] + halves[1:]) / 2
    beside = [np.nextafter(middles, np.float32(end)) for end in (0, np.inf)]
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, dtype=np.uint64).astype(np.uint32)
    tried = np.concatenate((halves, middles, *beside))
    tried = np.concatenate((tried, -tried))
    small = tried[np.abs(tried) < 32768]
    random = bits.view(np.float32)
    finite = random[np.isfinite(random) & (np.abs(random) < 32768)]

    with np.errstate(over="ignore", invalid="ignore"):
        for values in (small, finite, tried, random):  # the last two have what arithmetic does not do
            cast = values.astype(np.float16).astype(np.float32)
            same = rounded_to_f16(values).view(np.uint32) == cast.view(np.uint32)
            assert (same | np.isnan(cast)).all()
            same = f32_to_f16(values).view(np.uint16) == values.astype(np.float16).view(np.uint16)
            assert (same | np.isnan(cast)).all()
