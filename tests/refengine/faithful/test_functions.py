"""Exponentials and the like."""

import numpy as np
import pytest

from refengine.blocks import F32
from refengine.faithful import functions
from refengine.peers.simd import Simd

WIDE = Simd(lanes=16, tiles=True, half_sums=False)
NARROW = Simd(lanes=8, tiles=True, half_sums=False)
EVERYWHERE: F32 = np.linspace(-120, 100, 20_001, dtype=np.float32)


@pytest.mark.parametrize("simd", [WIDE, NARROW])
def test_vector_exp(simd: Simd) -> None:
    """Ggml's polynomial is right to two units in the last place where F32 has normal numbers."""
    found = functions.vector_exp(EVERYWHERE, simd).astype(np.float64)

    expected = np.exp(EVERYWHERE.astype(np.float64))
    normal = (expected > 1.2e-38) & (expected < 3.4e38)
    assert np.abs(found / np.where(normal, expected, 1) - 1)[normal].max() < 2.4e-7
    assert (found[expected >= 3.5e38] == np.inf).all()
    assert (found[expected <= 1e-46] == 0).all()


@pytest.mark.parametrize("simd", [WIDE, NARROW])
def test_vector_exp_of_what_is_not_finite(simd: Simd) -> None:
    """Infinities and NaN give what they give anywhere."""
    x = np.array([-np.inf, np.inf, np.nan, 0], np.float32)

    assert functions.vector_exp(x, simd).tolist()[:2] == [0, np.inf]
    assert np.isnan(functions.vector_exp(x, simd)[2])
    assert functions.vector_exp(x, simd)[3] == 1


@pytest.mark.parametrize("name", ["exp", "cos", "sin", "tanh", "log"])
def test_c_library(name: str) -> None:
    """The C library's functions are called with F32 of any shape, and are right to one unit in the last place."""
    x = np.linspace(0.01, 20, 600, dtype=np.float32).reshape(2, 300)

    found = getattr(functions, f"c_{name}")(x)

    expected = getattr(np, name)(x.astype(np.float64))
    assert found.shape == x.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1.3e-7, atol=1e-9)
