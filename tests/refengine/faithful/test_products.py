"""Dot products, bit for bit those of ggml's C code."""

import numpy as np
import pytest

from bench.synth.blocks import random_blocks
from ggufphys.gguf import SIZES, GGMLType
from ggufphys.graph.allocating.work import vec_dot_type
from refengine.arrays import dtype_of
from refengine.blocks import F32
from refengine.faithful.blocks import K_TYPES, SIMPLE, TILED_ROWS, activations, kernel, levels, tiled
from refengine.faithful.floats import FLOATS, dots, is_tiled
from refengine.peers.simd import Simd
from refengine.quant.activations import quantize_activations
from refengine.quant.convert import from_f32, to_f32
from tests.refengine.faithful.bits import c_dot, same_bits, simd_or_skip

WIDE = Simd(lanes=16, tiles=True, half_sums=False)
NARROW = Simd(lanes=8, tiles=True, half_sums=False)


def like_activations(n: int) -> F32:
    """Three rows whose elements are of different size."""
    rng = np.random.default_rng(n)
    rows: F32 = rng.standard_normal((3, n), dtype=np.float32) * np.exp(rng.standard_normal(n, dtype=np.float32))
    return rows


@pytest.mark.parametrize("n", [32, 64, 256, 768, 777])
@pytest.mark.parametrize("ggml_type", FLOATS)
def test_floats(ggml_type: GGMLType, n: int) -> None:
    """One row at a time is added up as ggml_vec_dot does, elements behind the last whole step included."""
    simd = simd_or_skip()
    w, x = from_f32(like_activations(n), ggml_type), from_f32(like_activations(n + 1)[:, :n].copy(), ggml_type)

    found = dots(ggml_type, to_f32(w, ggml_type), to_f32(x, ggml_type), simd)

    dot = c_dot(ggml_type)
    expected = [[dot(row.view(np.uint8), col.view(np.uint8), n) for row in w] for col in x]
    assert same_bits(found, np.array(expected, np.float32))


@pytest.mark.parametrize("ggml_type", [*SIMPLE, *K_TYPES, GGMLType.NVFP4])
def test_blocks(ggml_type: GGMLType) -> None:
    """One row of activations with blocks of weights is what ggml_vec_dot gives."""
    simd_or_skip()
    n, n_rows = 768, 5
    rng = np.random.default_rng(1)
    blocks = random_blocks(ggml_type, n_rows * n // SIZES[ggml_type].block_size, rng, 0.02)
    if ggml_type is GGMLType.NVFP4:
        blocks[:, :4] = rng.integers(1, 100, (len(blocks), 4))  # scales, where random blocks have one for all
    raw = np.frombuffer(blocks.tobytes(), np.uint8).reshape(n_rows, -1)
    x = like_activations(n)

    multiply = kernel(ggml_type, 1)
    assert multiply is not None
    to_type = vec_dot_type(ggml_type)
    found = multiply(levels(ggml_type, raw.view(dtype_of(ggml_type))), activations(to_type, x))

    dot = c_dot(ggml_type)
    expected = [[dot(row, quantize_activations(to_type, col), n) for row in raw] for col in x]
    assert same_bits(found, np.array(expected, np.float32))


@pytest.mark.parametrize("ggml_type", K_TYPES)
def test_tiles_are_near(ggml_type: GGMLType) -> None:
    """Tiles of several rows give the same product but for the order of sums."""
    n, n_rows = 512, 7
    blocks = random_blocks(ggml_type, n_rows * n // SIZES[ggml_type].block_size, np.random.default_rng(2), 0.02)
    w = levels(ggml_type, np.frombuffer(blocks.tobytes(), dtype_of(ggml_type)).reshape(n_rows, -1))
    x = activations(vec_dot_type(ggml_type), like_activations(n))

    one_by_one = kernel(ggml_type, 1)
    assert one_by_one is not None
    assert kernel(ggml_type, TILED_ROWS) is tiled
    np.testing.assert_allclose(tiled(w, x), one_by_one(w, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("simd", "sizes", "tiled"),
    [
        (WIDE, (256, 256, 64), True),
        (WIDE, (256, 256, 1), False),  # a row by itself
        (WIDE, (256, 255, 64), False),  # tiles have four rows of weights
        (WIDE, (264, 256, 64), False),  # and whole vectors
        (NARROW, (264, 256, 64), True),
        (NARROW, (256, 256, 1), False),
        (Simd(lanes=8, tiles=False, half_sums=False), (256, 256, 64), False),
    ],
)
def test_tiled(simd: Simd, sizes: tuple[int, int, int], tiled: bool) -> None:
    """Several rows of whole vectors are multiplied in tiles, if llama.cpp has llamafile's kernels."""
    n_in, n_out, n_rows = sizes

    assert is_tiled(GGMLType.F16, simd, n_in=n_in, n_out=n_out, n_rows=n_rows) is tiled


def test_tiles_of_pairs() -> None:
    """Where pairs are multiplied a vector has twice as many numbers."""
    simd = Simd(lanes=16, tiles=True, half_sums=False, bf16_pairs=True)

    assert not is_tiled(GGMLType.BF16, simd, n_in=48, n_out=4, n_rows=2)
    assert is_tiled(GGMLType.F16, simd, n_in=48, n_out=4, n_rows=2)


@pytest.mark.parametrize("n_rows", [1, 2])
@pytest.mark.parametrize("ggml_type", FLOATS)
@pytest.mark.parametrize("simd", [WIDE, NARROW, Simd(lanes=16, tiles=True, half_sums=True, bf16_pairs=True)])
def test_any_order_is_near(simd: Simd, ggml_type: GGMLType, n_rows: int) -> None:
    """Whatever the lanes, the product is right to F32's precision."""
    w, x = like_activations(992)[[0, 1, 2, 0]], like_activations(993)[:, :992]

    found = dots(ggml_type, w, x, simd, n_rows=n_rows)

    exact = x.astype(np.float64) @ w.astype(np.float64).T
    assert np.abs(found - exact).max() < 1e-5 * np.abs(exact).max() + 1e-3
