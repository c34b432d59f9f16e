"""Independent hyper-connections: several residual streams, each with its own weight in what a layer reads and writes.

The streams mix only through what the layer makes of their weighted sum.

Legend: E n_embd, N streams, T tokens.
Source: llama.cpp 0c1e570 src/models/hy-v4.cpp, build_hc_pre, build_hc_post, build_hc_head, hy_v4_hc_reduce.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.hyper import WeightedStreams, mixed, row, stream
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32


class IndependentStreams(WeightedStreams):
    """The streams of one model, (E, N, T), and how its layers read and write them."""

    def __init__(self, b: Builder) -> None:
        super().__init__(b)
        self.magnitude = b.keys.real("hyper_connection.magnitude")

    def read(self, streams: Tensor, name: str, il: int) -> tuple[Tensor, Tensor]:
        """What a block reads of the streams (E, T), and by how much they take what it writes (N, T)."""
        mixes = self.mixes(streams, self.b.weight(f"hc_{name}_fn.weight", il))
        before, behind = (ops.unary(self.part(mixes, name, il, i), "sigmoid") for i in range(2))
        before = ops.scale(before, 1.0, self.eps)
        behind = ops.scale(ops.scale(behind, self.magnitude), 1.0, self.eps)
        return _mixed(streams, before), behind

    def write(self, streams: Tensor, x: Tensor, weights: Tensor) -> Tensor:
        """The streams (E, N, T), each plus its weight times X (E, T)."""
        n_embd, n_tokens = x.ne[:2]
        x, weights, old = (ops.cast(part, F32) for part in (x, weights, streams))
        out: Tensor | None = None
        for i in range(self.n):
            one = ops.add(stream(old, i), ops.mul(x, row(weights, i)))
            one = ops.reshape(one, n_embd, 1, n_tokens)
            out = one if out is None else ops.concat(out, one, 1)
        assert out is not None, "no streams"
        return ops.cast(out, streams.type)

    def end(self, streams: Tensor) -> Tensor:
        """One stream (E, T) for the head."""
        return _mixed(streams, self.head_weights(streams))


def _mixed(streams: Tensor, weights: Tensor) -> Tensor:
    """As `mixed`, in F32, which the streams are anyway."""
    return ops.cast(mixed(ops.cast(streams, F32), weights), streams.type)
