"""F32 arithmetic of vectors in F64."""

from fractions import Fraction

import numpy as np
import pytest

from refengine.faithful.arithmetic import F64, as_f64, fma, halved, in_order
from tests.refengine.faithful.bits import same_bits


def nearest_f32(exact: Fraction) -> float:
    """The F32 that is nearest to a number, the even one of two."""
    guess = np.float32(float(exact))
    near = [
        float(f) for f in (np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf)))
    ]
    return min(near, key=lambda f: (abs(Fraction(f) - exact), int(np.float32(f).view(np.uint32)) & 1))


def random_f32(rng: np.random.Generator, n: int) -> F64:
    """Of many magnitudes."""
    return as_f64(rng.standard_normal(n) * 2.0 ** rng.integers(-30, 30, n))


def test_fma_rounds_once() -> None:
    """`fma` is the exact a * b + c, rounded to F32, also where F64 would end half way between two F32."""
    rng = np.random.default_rng(0)
    a, b, c = (random_f32(rng, 3000) for _ in range(3))
    # 1 + 2^-24 is half way; what F64 loses of the sum decides
    a = np.concatenate((a, [1 + 2.0**-23, 1 + 2.0**-23, 1.0, 1.0]))
    b = np.concatenate((b, [2.0**-24, 2.0**-24, 2.0**-24, 2.0**-24]))
    c = np.concatenate((c, [1.0, -1.0, 1.0, 1 + 2.0**-23]))
    tiny = 2.0**-100
    a, b, c = np.append(a, [tiny, -tiny]), np.append(b, [1.0, 1.0]), np.append(c, [1 + 2.0**-24, 1 + 2.0**-24])

    expected = [nearest_f32(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in zip(a, b, c, strict=True)]

    assert same_bits(fma(a, b, c).astype(np.float32), np.array(expected, np.float32))


def test_fma_broadcasts() -> None:
    """Operands of fewer axes count for all; scalars, too."""
    a = np.array([[1.0], [2.0]])

    assert fma(a, np.array([1.0, 3.0]), 0.5).tolist() == [[1.5, 3.5], [2.5, 6.5]]


@pytest.mark.parametrize("n", [1, 2, 16])
def test_halved(n: int) -> None:
    """The upper half is added to the lower, in F32, until one number is left."""
    lanes = np.random.default_rng(n).standard_normal((3, n)).astype(np.float32)

    def total(x: list[np.float32]) -> np.float32:
        half = len(x) // 2
        return x[0] if not half else total([a + b for a, b in zip(x[:half], x[half:], strict=True)])

    assert same_bits(halved(lanes), np.array([total(list(row)) for row in lanes]))


def test_in_order() -> None:
    """Numbers are added from the first to the last."""
    values = np.array([1e16, 1.0, -1e16, 1.0])

    assert in_order(values) == ((1e16 + 1.0) - 1e16) + 1.0
