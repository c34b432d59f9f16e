"""Numbers as C computes with them: 32 bits where Python has 64, and no errors: what nothing can be divided by gives
infinity, and what has no logarithm no number.
"""

import struct
from math import copysign, inf, log, nan, sqrt


def f32(value: float) -> float:
    """The nearest number that a float can hold."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def quotient(a: float, b: float) -> float:
    """`a / b`, by 0 too: files may hold any factor, and those that llama.cpp takes are no reason to stop."""
    if b:
        return a / b
    return nan if not a or a != a else copysign(inf, a) * copysign(1.0, b)


def logarithm(x: float) -> float:
    """The natural one: of 0 minus infinity, of what is below it none."""
    if x > 0:
        return log(x)
    return nan if x else -inf


def sqrtf(value: float) -> float:
    """The root as a float; scales of attention are its inverse."""
    return f32(sqrt(value))
