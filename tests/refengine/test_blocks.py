"""The block layouts."""

import pytest

from ggufphys.gguf import SIZES, GGMLType
from refengine.blocks import BLOCKS
from refengine.dequant.table import FORMATS


@pytest.mark.parametrize("ggml_type", BLOCKS, ids=lambda t: t.name)
def test_sizes(ggml_type: GGMLType) -> None:
    """Each layout has the size of the C struct."""
    assert SIZES[ggml_type].type_size == BLOCKS[ggml_type].itemsize


def test_every_layout_has_a_kernel() -> None:
    """Layouts and kernels are of the same types, but for Q8_1: ggml makes it of activations and never goes back."""
    assert set(BLOCKS) == {*FORMATS, GGMLType.Q8_1}
