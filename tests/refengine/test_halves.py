"""Activation functions that are looked up, against ggml's own tables."""

import numpy as np
import pytest

from refengine.ops.halves import gelu, gelu_quick_table, gelu_table
from refengine.peers import ggml


@pytest.mark.parametrize("name", ["gelu", "gelu_quick"])
def test_tables(name: str) -> None:
    """Every half that is a number gives ggml's result to the bit."""
    ours = {"gelu": gelu_table, "gelu_quick": gelu_quick_table}[name]().astype(np.float16).view(np.uint16)
    is_number = np.isfinite(np.arange(1 << 16, dtype=np.uint16).view(np.float16))

    assert np.array_equal(ours[is_number], ggml.cpu_table(f"ggml_table_{name}_f16")[is_number])


def test_beyond_the_table() -> None:
    """Far from 0 nothing is looked up."""
    x = np.array([-10.5, -10.0, 10.0, 12.34567], np.float32)

    assert gelu(x).tolist() == [0.0, 0.0, 10.0, x[3]]
