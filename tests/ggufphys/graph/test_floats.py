"""C's floats."""

import numpy as np
import pytest

from ggufphys.graph.floats import f32, sqrtf


@pytest.mark.parametrize("n", [2, 64, 72, 80, 96, 112, 128, 192, 256, 288])
def test_scales(n: int) -> None:
    """A scale is what numpy makes of 32-bit numbers: the root rounded, then its inverse."""
    assert f32(1 / sqrtf(n)) == np.float32(1) / np.sqrt(np.float32(n))
