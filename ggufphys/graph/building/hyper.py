"""Hyper-connections: several streams beside each other in place of one residual.

A layer reads a mixture of the streams and writes what it makes of that back to all of them, while they mix with each
other. The weights of all three mixtures come of what is in the streams.

Legend: E n_embd, N streams, T tokens. Source: llama.cpp 0c1e570 src/models/deepseek4.cpp, build_hc_pre, build_hc_post,
build_hc_head, build_hc_mean; ggml/src/ggml.c, ggml_dsv4_hc_pre, ggml_dsv4_hc_comb, ggml_dsv4_hc_post.
"""

from typing import Final, Literal

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32

HC_PRE: Final = "DSV4_HC_PRE"
HC_COMB: Final = "DSV4_HC_COMB"
HC_POST: Final = "DSV4_HC_POST"
PROBED: Final = (HC_PRE, HC_COMB, HC_POST)
"""What llama.cpp gives up if a layer's would run elsewhere, in the order in which it tries them."""


class WeightedStreams:
    """Streams (E, N, T) whose weights when they are read and written come of one product, all of them as one row."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.n = b.h.hc_mult
        self.eps = b.keys.real("hyper_connection.epsilon")

    def begin(self, x: Tensor) -> Tensor:
        """X (E, T) in all streams."""
        return copies(x, self.n)

    def head_weights(self, streams: Tensor) -> Tensor:
        """The weights of the mixture behind the last layer (N, T)."""
        b = self.b
        mixes = self.mixes(streams, b.weight("output_hc_fn.weight"))
        mixes = ops.add(ops.mul(mixes, b.weight("output_hc_scale.weight")), b.weight("output_hc_base.weight"))
        return ops.scale(ops.unary(mixes, "sigmoid"), 1.0, self.eps)

    def mixes(self, streams: Tensor, matrix: Tensor) -> Tensor:
        """The product of a matrix and all streams of a token as one normed row."""
        n_embd, n, n_tokens = streams.ne[:3]
        flat = ops.rms_norm(ops.reshape(streams, n_embd * n, n_tokens), self.b.norm_rms_eps)
        return ops.mul_mat(matrix, flat)

    def part(self, mixes: Tensor, name: str, il: int, i: int, width: int = 0) -> Tensor:
        """Of the product the rows from `i` * N on, N or `width` of them: scaled and shifted as that part is."""
        b, width = self.b, width or self.n
        scale, base = b.weight(f"hc_{name}_scale.weight", il), b.weight(f"hc_{name}_base.weight", il)
        first = i * self.n
        mix = ops.strided(mixes, (width, mixes.ne[1]), (mixes.nb[1],), first * mixes.nb[0])
        mix = ops.mul(mix, ops.view(scale, (1,), offset=i * scale.nb[0]))
        return ops.add(mix, ops.view(base, (width,), offset=first * base.nb[0]))


class Streams(WeightedStreams):
    """Reads from the streams (E, N, T) and writes to them, with weights that are named alike in all layers."""

    def __init__(self, b: Builder) -> None:
        super().__init__(b)
        self.n_iter = b.keys.integer("hyper_connection.sinkhorn_iterations")

    def read(self, streams: Tensor, name: Literal["attn", "ffn"], il: int) -> tuple[Tensor, "Write"]:
        """What attention or the feed-forward layer works on (E, T), and how its result is to be written."""
        b, n = self.b, self.n
        mixes = self.mixes(streams, b.weight(f"hc_{name}_fn.weight", il))  # (N + N + N*N, T)
        scale, base = b.weight(f"hc_{name}_scale.weight", il), b.weight(f"hc_{name}_base.weight", il)

        weights = ops.scale(ops.unary(self.part(mixes, name, il, 0), "sigmoid"), 1.0, self.eps)
        if HC_PRE in b.context.unfused:
            x = mixed(streams, weights)
        else:
            x = hc_pre(streams, weights)
            b.graph.probed[x] = il
        if HC_COMB in b.context.unfused:
            comb = self._evened(ops.reshape(self.part(mixes, name, il, 2, n * n), n, n, mixes.ne[1]))
        else:
            comb = hc_comb(mixes, scale, base, self.eps, self.n_iter)
            b.graph.probed[comb] = il
        post = ops.scale(ops.unary(self.part(mixes, name, il, 1), "sigmoid"), 2.0)
        return x, Write(b, il, streams, post, comb)

    def head(self, streams: Tensor) -> Tensor:
        """What the norm behind the last layer works on (E, T)."""
        return mixed(streams, self.head_weights(streams))

    def _evened(self, scores: Tensor) -> Tensor:
        """What `hc_comb` makes of the scores (N, N, T), step by step."""
        eps = ops.elementwise("FILL", Tensor("NONE", F32, (1,)), params=(self.eps,))

        def rows(comb: Tensor) -> Tensor:
            return ops.div(comb, ops.add(ops.sum_rows(comb), eps))

        def columns(comb: Tensor) -> Tensor:
            total = ops.add(ops.sum_rows(ops.cont(ops.permute(comb, 1, 0, 2, 3))), eps)
            return ops.div(comb, ops.permute(total, 1, 0, 2, 3))

        comb = columns(ops.add(ops.soft_max(scores), eps))
        for _ in range(1, self.n_iter):
            comb = columns(rows(comb))
        return comb


class Write:
    """Where a result goes: `post` (N, T) times to each stream, which mix with each other by `comb` (N, N, T)."""

    __slots__ = ("b", "comb", "il", "post", "streams")

    def __init__(self, b: Builder, il: int, streams: Tensor, post: Tensor, comb: Tensor) -> None:
        self.b = b
        self.il = il
        self.streams = streams
        self.post = post
        self.comb = comb

    def __call__(self, x: Tensor) -> Tensor:
        """X (E, T), written: the streams behind it."""
        if HC_POST in self.b.context.unfused:
            return self._unfused(x)
        streams = hc_post(x, self.streams, self.post, self.comb)
        self.b.graph.probed[streams] = self.il
        return streams

    def _unfused(self, x: Tensor) -> Tensor:
        """X (E, T), written stream by stream: the streams behind it."""
        n_embd, n, n_tokens = self.streams.ne[:3]
        post, comb = self.post, self.comb
        out: Tensor | None = None
        for i in range(n):
            part = ops.mul(x, row(post, i))
            for j in range(n):
                weight = ops.strided(comb, (1, n_tokens), (comb.nb[2],), i * comb.nb[0] + j * comb.nb[1])
                part = ops.add(part, ops.mul(stream(self.streams, j), weight))
            part = ops.reshape(part, n_embd, 1, n_tokens)
            out = part if out is None else ops.concat(out, part, 1)
        assert out is not None, "no streams"
        return out


def copies(x: Tensor, n: int) -> Tensor:
    """X (E, T) in N streams (E, N, T)."""
    n_embd, n_tokens = x.ne[:2]
    return ops.repeat(ops.reshape(x, n_embd, 1, n_tokens), n_embd, n, n_tokens)


def mixed(streams: Tensor, weights: Tensor) -> Tensor:
    """The sum of the streams (E, N, T), weighted (N, T), stream by stream: (E, T)."""
    out: Tensor | None = None
    for i in range(streams.ne[1]):
        part = ops.mul(stream(streams, i), row(weights, i))
        out = part if out is None else ops.add(out, part)
    assert out is not None, "no streams"
    return out


def wanted(streams: Tensor, out_ids: Tensor) -> Tensor:
    """The streams of those tokens alone whose logits are wanted."""
    n_embd, n, n_tokens = streams.ne[:3]
    rows = ops.get_rows(ops.reshape(streams, n_embd * n, n_tokens), out_ids)
    return ops.reshape(rows, n_embd, n, rows.ne[1])


def mean(streams: Tensor) -> Tensor:
    """The mean of the streams: (E, T)."""
    total = stream(streams, 0)
    for i in range(1, streams.ne[1]):
        total = ops.add(total, stream(streams, i))
    return ops.scale(total, 1 / streams.ne[1])


def row(weights: Tensor, i: int) -> Tensor:
    """A stream's weight for each token (1, T)."""
    return ops.strided(weights, (1, weights.ne[1]), (weights.nb[1],), i * weights.nb[0])


def stream(streams: Tensor, i: int) -> Tensor:
    """One stream (E, T)."""
    return ops.strided(streams, (streams.ne[0], streams.ne[2]), (streams.nb[2],), i * streams.nb[1])


# -- ggml's operations


def hc_pre(x: Tensor, weights: Tensor) -> Tensor:
    """The streams (E, N, T), each weighted (N, T), added: (E, T)."""
    return Tensor(HC_PRE, F32, (x.ne[0], x.ne[2]), (x, weights), params=(1.0, False))


def hc_post(x: Tensor, streams: Tensor, post: Tensor, comb: Tensor) -> Tensor:
    """To each stream (E, N, T) X (E, T) times its weight (N, T), and of the streams what it takes (N, N, T) of each."""
    return Tensor(HC_POST, F32, streams.ne, (x, streams, post, comb))


def hc_comb(mixes: Tensor, scale: Tensor, base: Tensor, eps: float, n_iter: int) -> Tensor:
    """How much of each stream goes to each (N, N, T): rows and columns that add up to 1, by so many iterations."""
    n = next(n for n in range(1, mixes.ne[0]) if (2 + n) * n == mixes.ne[0])
    return Tensor(HC_COMB, F32, (n, n, mixes.ne[1]), (mixes, scale, base), params=(eps, n_iter))
