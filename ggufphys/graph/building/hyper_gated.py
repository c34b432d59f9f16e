"""Gated hyper-connections: several residual streams, of which each element has a gate of its own when a block reads.

Legend: E n_embd, N streams, T tokens, R the low rank of the gates.
Source: llama.cpp 0c1e570 src/models/qwen4exp.cpp, build_hc_mix, build_hc_combine.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.hyper import HC_POST, HC_PRE, copies
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32


class GatedStreams:
    """The streams of one model, (E, N, T), and how its layers read and write them."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.n = b.h.hc_mult

    def begin(self, x: Tensor) -> Tensor:
        """As many copies of X (E, T): (E, N, T)."""
        return copies(x, self.n)

    def gain(self, name: str, il: int | None = None) -> Tensor:
        """A gain for each element of each stream (E, N), however the file shapes it."""
        gain = self.b.weight(f"{name}.weight", il)
        return ops.weight(gain.type, self.b.h.n_embd, self.n, name=gain.name)

    def normed(self, streams: Tensor, name: str, il: int | None = None) -> Tensor:
        """The streams (E, N, T), each normed by itself."""
        return ops.mul(ops.rms_norm(streams, self.b.norm_rms_eps), self.gain(name, il))

    def read(self, streams: Tensor, name: str, il: int) -> tuple[Tensor, Tensor]:
        """What a block reads of the streams (E, T), and by how much they take what it writes, as `write` wants it."""
        b, shape = self.b, streams.ne[:3]
        row, gate = self._row_and_gate(streams, f"hc_{name}", il)
        if HC_PRE in b.context.unfused:
            x = self._mean(row, gate, streams)
        else:
            x = hc_pre_gated(ops.reshape(row, *shape), ops.reshape(gate, *shape), 1 / self.n)
            b.graph.probed[x] = il
        return x, b.mul_mat(b.weight(f"hc_{name}_inject.weight", il), row)

    def write(self, streams: Tensor, x: Tensor, inject: Tensor, il: int) -> Tensor:
        """The streams (E, N, T), each plus 2 sigmoid(inject / N) (N, T) times X (E, T)."""
        b, (n_embd, n, n_tokens) = self.b, streams.ne[:3]
        weights = ops.scale(ops.unary(ops.scale(inject, 1 / n), "sigmoid"), 2.0)
        if HC_POST in b.context.unfused:
            x = ops.repeat(ops.reshape(x, n_embd, 1, n_tokens), n_embd, n, n_tokens)
            return ops.add(streams, ops.mul(x, ops.reshape(weights, 1, n, n_tokens)))
        streams = Tensor(HC_POST, F32, streams.ne, (x, streams, weights))
        b.graph.probed[streams] = il
        return streams

    def end(self, streams: Tensor) -> Tensor:
        """One stream (E, T) for the head, normed."""
        return self._mean(*self._row_and_gate(streams, "output_hc", None), streams)

    def _mean(self, row: Tensor, gate: Tensor, streams: Tensor) -> Tensor:
        """The mean of the normed streams in a row (E*N, T), each element times sigmoid(gate): (E, T)."""
        n_embd, n, n_tokens = streams.ne[:3]
        gated = ops.reshape(ops.mul(row, ops.unary(gate, "sigmoid")), n_embd, n, n_tokens)
        first, *others = (ops.strided(gated, (n_embd, n_tokens), (gated.nb[2],), i * gated.nb[1]) for i in range(n))
        out = ops.cont(first)
        for other in others:
            out = ops.add(out, other)
        return ops.scale(out, 1 / n)

    def _row_and_gate(self, streams: Tensor, name: str, il: int | None) -> tuple[Tensor, Tensor]:
        """The normed streams of a token as one row (E*N, T), and the gate on each element."""
        b, (n_embd, n, n_tokens) = self.b, streams.ne[:3]
        row = ops.reshape(self.normed(streams, f"{name}_norm", il), n_embd * n, n_tokens)
        low = ops.unary(ops.scale(b.mul_mat(b.weight(f"{name}_down.weight", il), row), 1 / n), "silu")  # (R, T)
        return row, b.mul_mat(b.weight(f"{name}_up.weight", il), low)


def hc_pre_gated(x: Tensor, gate: Tensor, factor: float) -> Tensor:
    """The sum over streams (E, N, T) of factor * sigmoid(gate) * X: (E, T)."""
    return Tensor(HC_PRE, F32, (x.ne[0], x.ne[2]), (x, gate), params=(factor, True))
