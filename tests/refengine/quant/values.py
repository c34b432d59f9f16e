"""Values to quantise, of every sort."""

from collections.abc import Iterator

import numpy as np

from refengine.blocks import F32


def value_samples(n_rows: int, seed: int) -> Iterator[tuple[str, F32]]:
    """Finite values to quantise, `(n_rows, 256)` each: like a model's, and ones that are hard to round."""
    rng = np.random.default_rng(seed)
    shape = (n_rows, 256)
    normal = rng.standard_normal(shape)
    yield "normal", normal.astype(np.float32)
    yield "heavy tails", rng.laplace(scale=0.02, size=shape).astype(np.float32)
    yield "any magnitude", (normal * 10.0 ** rng.uniform(-30, 30, (n_rows, 1))).astype(np.float32)
    yield "subnormal", (normal * 2.0 ** rng.integers(-149, -110, (n_rows, 1))).astype(np.float32)
    yield "ties", (rng.integers(-254, 255, shape) / 2).astype(np.float32)
    flat = normal.reshape(-1, 32)
    flat[::3], flat[1::7], flat[2::11] = 0, 1, -3  # whole sub-blocks of one value
    flat[:, ::5] = 0
    flat[::2] *= -1  # zeros of both signs
    yield "flat", flat.reshape(shape).astype(np.float32)
    bits = rng.integers(0, 1 << 32, shape, dtype=np.uint32).view(np.float32)
    yield "any bits", np.where(np.isfinite(bits), bits, np.float32(0))
