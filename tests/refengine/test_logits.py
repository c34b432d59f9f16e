"""Our logits against llama.cpp's."""

import numpy as np
import pytest

import refengine
from ggufphys.embedded import MODEL
from refengine.logits import agreement, compare_logits

# Activations are rounded to F16 in front of every product with F16 weights. Two computations whose sums differ in the
# last bit of F32 round some of them differently, and after some layers differ by F16's noise: so do ours with sums in
# F32 and F64, and llama.cpp's with and without flash attention.
F16_NOISE = 5e-7

PYTHON = [37, 265, 3, 1112, 11, 290, 421, 99, 1500, 2000, 7, 13]  # any tokens will do


@pytest.mark.parametrize("flash_attn", [False, True])
def test_embedded_model(flash_attn: bool) -> None:
    """On the embedded model both find the same token likeliest at every position, within F16's noise."""
    model = refengine.load(MODEL, flash_attn=flash_attn)
    tokens = list(model.generate(PYTHON, 84))

    [found] = compare_logits([model], PYTHON + tokens, 64)

    assert found.n_positions == 96
    assert found.top1 == 1.0
    assert found.nmse < F16_NOISE


def test_agreement() -> None:
    """The error is relative to the reference's own square."""
    reference = np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)
    found = agreement(reference, reference + np.array([[0.0, 1.0], [6.0, 0.0]], np.float32))

    assert found.nmse == pytest.approx(37 / 50)
    assert found.max_abs == 6.0
    assert found.top1 == 0.5
