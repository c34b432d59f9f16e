"""Element by element: arithmetic, and activation functions.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/binary-ops.cpp, unary-ops.cpp, vec.h.
"""

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, Final

import numpy as np

from refengine.arrays import Array
from refengine.blocks import F32
from refengine.ops.halves import gelu, gelu_quick
from refengine.ops.step import Operation, Run, Step

BinaryFunction = Callable[..., Any]


def binary(function: BinaryFunction) -> Operation:
    """An operation of two operands; the second is repeated over the first."""

    def operation(step: Step) -> Run:
        a, b, out = step.reader(0), step.reader(1), step.out
        repeats = [n // m for n, m in zip(out.shape, step.src[1].shape, strict=True)]
        if all(n == 1 or m == 1 for n, m in zip(repeats, step.src[1].shape, strict=True)):
            x, y = a(), b()
            if step.src[0] is x and (step.src[1] is y or step.is_weight(1)):
                return lambda: function(x, y, out)
            return lambda: function(a(), b(), out)
        return lambda: function(a(), np.tile(b(), repeats), out)

    return operation


def unary_of(function: Callable[[F32], F32]) -> Operation:
    """An operation of one operand."""

    def operation(step: Step) -> Run:
        x, out = step.reader(0), step.out

        def run() -> None:
            out[...] = function(x())

        return run

    return operation


def scale(step: Step) -> Run:
    """Factor * x + offset."""
    factor, offset = (np.float32(number) for number in step.node.params)  # type: ignore[arg-type]
    x, out = step.reader(0), step.out
    if not offset:
        return lambda: np.multiply(x(), factor, out)
    return lambda: np.add(np.multiply(x(), factor), offset, out)


def clamp(step: Step) -> Run:
    """X between two bounds."""
    low, high = (np.float32(number) for number in step.node.params)  # type: ignore[arg-type]
    x, out = step.reader(0), step.out
    return lambda: np.clip(x(), low, high, out)


def fill(step: Step) -> Run:
    """One number everywhere."""
    value, out = step.node.params[0], step.out
    return lambda: out.fill(value)


def arange(step: Step) -> Run:
    """Numbers that follow each other."""
    start, _, stride = (np.float32(number) for number in step.node.params)  # type: ignore[arg-type]
    out = step.out
    numbers = start + stride * np.arange(out.size, dtype=np.float32)
    return lambda: np.copyto(out, numbers)


def add_id(step: Step) -> Run:
    """`(1, T, U, E)` plus, for each expert that a token chose, the row of `(1, 1, X, E)` that belongs to it."""
    a, b, ids, out = step.reader(0), step.reader(1), step.src[2], step.out
    return lambda: np.add(a(), b()[0, 0][ids[0, 0]], out)


# -- activation functions


def sigmoid(x: F32) -> F32:
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + _exp(-x))


def silu(x: F32, out: F32 | None = None) -> F32:
    """X / (1 + e^-x), in one array, which may be given: large ones take long to be had."""
    y = np.negative(x, out)
    with np.errstate(over="ignore"):
        np.exp(y, y)
    np.add(y, np.float32(1), y)
    return np.divide(x, y, y)


def _exp(x: F32) -> F32:
    with np.errstate(over="ignore"):
        result: F32 = np.exp(x)
    return result


def gelu_erf(x: F32) -> F32:
    """GELU by its definition."""
    return 0.5 * x * (1.0 + erf(x * sqrt(0.5)))


def erf(x: F32) -> F32:
    """The error function, to F32's precision: by its series near 0, by the continued fraction of erfc beyond."""
    z = np.minimum(np.abs(x.astype(np.float64)), 6.0)
    series, term = z.copy(), z.copy()
    for n in range(1, 40):
        term *= -z * z / n
        series += term / (2 * n + 1)
    series *= 2 / np.sqrt(np.pi)
    far = np.maximum(z, 1.5)
    fraction = far.copy()
    for n in range(60, 0, -1):
        fraction = far + n / 2 / fraction
    tail = 1 - np.exp(-far * far) / (fraction * np.sqrt(np.pi))
    return np.copysign(np.where(z < 2.0, series, tail), x).astype(np.float32)


def softplus(x: F32) -> F32:
    """log(1 + e^x)."""
    return np.where(x > 20, x, np.log(1.0 + np.exp(np.minimum(x, 20.0))))


def relu(x: F32) -> F32:
    """X, 0 where it is negative."""
    return np.maximum(x, 0.0)


def hardsigmoid(x: F32) -> F32:
    """(x + 3) / 6 between 0 and 1."""
    clipped: F32 = np.clip((x + 3.0) / 6.0, 0.0, 1.0)
    return clipped


# fmt: off
ACTIVATIONS: Final[Mapping[str, Callable[[F32], F32]]] = {
    "abs": np.abs, "neg": np.negative, "sgn": np.sign, "tanh": np.tanh, "exp": np.exp,
    "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc,
    "step": lambda x: (x > 0).astype(np.float32),
    "round": lambda x: np.trunc(x + np.copysign(0.5, x)),
    "relu": relu, "sigmoid": sigmoid, "silu": silu, "softplus": softplus,
    "gelu": gelu, "gelu_quick": gelu_quick, "gelu_erf": gelu_erf,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "expm1": lambda x: _exp(x) - 1.0,
    "hardsigmoid": hardsigmoid,
    "hardswish": lambda x: x * hardsigmoid(x),
}
# fmt: on


def unary(step: Step) -> Run:
    """An activation function by its name."""
    kind = str(step.node.params[0])
    if kind == "xielu":
        return _xielu(step)
    return unary_of(ACTIVATIONS[kind])(step)


def _xielu(step: Step) -> Run:
    alpha_n, alpha_p, beta, eps = (np.float32(number) for number in step.node.params[1:5])  # type: ignore[arg-type]

    def function(x: F32) -> F32:
        negative = (np.expm1(np.minimum(x, eps)) - x) * alpha_n + beta * x
        return np.where(x > 0, alpha_p * x * x + beta * x, negative)

    return unary_of(function)(step)


# -- gated


def _swiglu_oai(gate: F32, up: F32, alpha: float, limit: float) -> F32:
    gate = np.minimum(gate, np.float32(limit))
    return gate * sigmoid(np.float32(alpha) * gate) * (np.clip(up, -np.float32(limit), np.float32(limit)) + 1)


def _swiglu_clamp(gate: F32, up: F32, limit: float) -> F32:
    return silu(np.minimum(gate, np.float32(limit))) * np.clip(up, -np.float32(limit), np.float32(limit))


# fmt: off
GATES: Final[Mapping[str, Callable[[F32], F32]]] = {
    "reglu": relu, "geglu": gelu, "geglu_erf": gelu_erf, "geglu_quick": gelu_quick,
}
LIMITED: Final[Mapping[str, Callable[..., F32]]] = {"swiglu_oai": _swiglu_oai, "swiglu_clamp": _swiglu_clamp}
# fmt: on


def glu(step: Step) -> Run:
    """act(gate) * up, of two operands or of the halves of one."""
    kind, numbers = str(step.node.params[0]), step.node.params[1:]
    gate, up, out = step.src[0], step.src[-1], step.out
    if len(step.src) == 1:
        gate, up = halves(gate)
    if kind in LIMITED:
        return lambda: np.copyto(out, LIMITED[kind](gate, up, *numbers))
    if kind == "swiglu":  # never in place: where the result goes, none of the operands is
        return lambda: np.multiply(silu(gate, out), up, out)
    return lambda: np.multiply(GATES[kind](gate), up, out)


def halves(x: Array) -> tuple[Array, Array]:
    """Gate and up of rows `(..., 2*n)` that hold both: `(..., n)` each."""
    n = x.shape[-1] // 2
    return x[..., :n], x[..., n:]


# fmt: off
OPERATIONS: Final[Mapping[str, Operation]] = {
    "ADD": binary(np.add), "SUB": binary(np.subtract), "MUL": binary(np.multiply), "DIV": binary(np.divide),
    "ADD1": binary(np.add), "ADD_ID": add_id,
    "SCALE": scale, "CLAMP": clamp, "FILL": fill, "ARANGE": arange,
    "SQR": unary_of(np.square), "SQRT": unary_of(np.sqrt), "LOG": unary_of(np.log),
    "SIN": unary_of(np.sin), "COS": unary_of(np.cos),
    "UNARY": unary, "GLU": glu,
}
# fmt: on
