"""Independent hyper-connections: several residual streams, each with its own weight in what a layer reads and writes.

The streams mix only through what the layer makes of their weighted sum.

Legend: E n_embd, N streams, T tokens.
Source: llama.cpp 0c1e570 src/models/hy-v4.cpp, build_hc_pre, build_hc_post, build_hc_head, hy_v4_hc_reduce.
"""

from ggufphys.graph import ops
from ggufphys.graph.blocks import Builder
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32


class IndependentStreams:
    """The streams of one model, (E, N, T), and how its layers read and write them."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.n_streams = b.h.hc_mult
        self.eps = b.keys.real("hyper_connection.epsilon")
        self.magnitude = b.keys.real("hyper_connection.magnitude")

    def begin(self, x: Tensor) -> Tensor:
        """As many copies of X (E, T): (E, N, T)."""
        n_embd, n_tokens = x.ne[:2]
        return ops.repeat(ops.reshape(x, n_embd, 1, n_tokens), n_embd, self.n_streams, n_tokens)

    def read(self, streams: Tensor, name: str, il: int) -> tuple[Tensor, Tensor]:
        """What a block reads of the streams (E, T), and by how much they take what it writes (N, T)."""
        n, b = self.n_streams, self.b
        mixes = self._mixes(streams, b.weight(f"hc_{name}_fn.weight", il))
        scale, base = b.weight(f"hc_{name}_scale.weight", il), b.weight(f"hc_{name}_base.weight", il)
        before, behind = (self._gate(mixes, scale, base, i) for i in range(2))
        before = ops.scale(before, 1.0, self.eps)
        behind = ops.scale(ops.scale(behind, self.magnitude), 1.0, self.eps)
        assert before.ne[0] == n
        return self._reduce(streams, before), behind

    def write(self, streams: Tensor, x: Tensor, weights: Tensor) -> Tensor:
        """The streams (E, N, T), each plus its weight times X (E, T)."""
        n_embd, n_tokens = x.ne[:2]
        x, weights, old = (ops.cast(part, F32) for part in (x, weights, streams))
        out: Tensor | None = None
        for i in range(self.n_streams):
            one = ops.add(self._stream(old, i), ops.mul(x, self._row(weights, i)))
            one = ops.reshape(one, n_embd, 1, n_tokens)
            out = one if out is None else ops.concat(out, one, 1)
        assert out is not None
        return ops.cast(out, streams.type)

    def end(self, streams: Tensor) -> Tensor:
        """One stream (E, T) for the head."""
        b = self.b
        mixes = self._mixes(streams, b.weight("output_hc_fn.weight"))
        weights = ops.add(ops.mul(mixes, b.weight("output_hc_scale.weight")), b.weight("output_hc_base.weight"))
        return self._reduce(streams, ops.scale(ops.unary(weights, "sigmoid"), 1.0, self.eps))

    def _mixes(self, streams: Tensor, matrix: Tensor) -> Tensor:
        """The product of a matrix and all streams of a token as one normed row."""
        n_embd, n, n_tokens = streams.ne[:3]
        flat = ops.reshape(streams, n_embd * n, n_tokens)
        return ops.mul_mat(matrix, ops.rms_norm(flat, self.b.norm_rms_eps))

    def _gate(self, mixes: Tensor, scale: Tensor, base: Tensor, i: int) -> Tensor:
        """Of the `i`th N rows of the product: sigmoid(scale * row + base)."""
        n, n_tokens = self.n_streams, mixes.ne[1]
        factor = ops.view(scale, (1,), offset=i * scale.nb[0])
        offsets = ops.view(base, (n,), offset=i * n * base.nb[0])
        rows = ops.strided(mixes, (n, n_tokens), (mixes.nb[1],), i * n * mixes.nb[0])
        return ops.unary(ops.add(ops.mul(rows, factor), offsets), "sigmoid")

    def _reduce(self, streams: Tensor, weights: Tensor) -> Tensor:
        """The sum of the streams (E, N, T), weighted (N, T): (E, T)."""
        values = ops.cast(streams, F32)
        out: Tensor | None = None
        for i in range(self.n_streams):
            one = ops.mul(self._stream(values, i), self._row(weights, i))
            out = one if out is None else ops.add(out, one)
        assert out is not None
        return ops.cast(out, streams.type)

    @staticmethod
    def _stream(streams: Tensor, i: int) -> Tensor:
        n_embd, _, n_tokens = streams.ne[:3]
        return ops.strided(streams, (n_embd, n_tokens), (streams.nb[2],), i * streams.nb[1])

    @staticmethod
    def _row(weights: Tensor, i: int) -> Tensor:
        return ops.strided(weights, (1, weights.ne[1]), (weights.nb[1],), i * weights.nb[0])
