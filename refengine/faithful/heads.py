"""What does attention work on, and what is left of it at the end? The heads of one stream."""

from dataclasses import dataclass

import numpy as np

from refengine.blocks import F32
from refengine.faithful.arithmetic import F64, as_f64, fma
from refengine.faithful.functions import c_exp, c_tanh


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """V `(H, C, E)`, mask times ALiBi's slope `(H, T, C)`, sinks `(H,)` or none; `v_is_f16`: it is summed up in F16."""

    v: F32
    mask: F32
    sinks: F32 | None
    scale: np.float32
    softcap: np.float32
    v_is_f16: bool

    def scaled(self, products: F32) -> F32:
        """Scores without a mask."""
        scores = products * self.scale
        return c_tanh(scores) * self.softcap if self.softcap else scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Of each query the largest score and the sum of weights, `(H, T)`, and the weighted sum, `(H, T, E)`."""

    top: F32
    total: F64
    acc: F64

    def with_sinks(self, sinks: F32 | None) -> "Sums":
        """A sink counts as a score without a value."""
        if sinks is None:
            return self
        sink = sinks[:, np.newaxis]
        higher = sink > self.top
        factor = c_exp(np.where(higher, self.top - sink, sink - self.top)).astype(np.float64)
        shrink, weight = np.where(higher, factor, 1), np.where(higher, 1, factor)
        return Sums(
            top=np.maximum(self.top, sink),
            total=fma(self.total, shrink, weight),
            acc=as_f64(self.acc * shrink[..., np.newaxis]),
        )

    def divided(self) -> F32:
        """The weighted sum over the sum of weights: `(H, T, E)`."""
        total = self.total.astype(np.float32)
        inverse = np.where(total == 0, np.float32(0), np.float32(1) / total)
        return self.acc.astype(np.float32) * inverse[..., np.newaxis]
