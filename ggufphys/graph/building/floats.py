"""Numbers as C's `float` holds them: what llama.cpp computes in 32 bits, Python computes in 64."""

import struct
from math import sqrt


def f32(value: float) -> float:
    """The nearest number that a float can hold."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def sqrtf(value: float) -> float:
    """The root as a float; scales of attention are its inverse."""
    return f32(sqrt(value))
