"""Embeddings of n-grams: each token and those before it are hashed to rows of a table, which one layer reads.

Legend: E n_embd, N streams, T tokens of a sequence, S n_seqs.
Source: llama.cpp 0c1e570 src/models/qwen4exp.cpp, build_inp_ple, build_ple.
"""

from math import inf

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.delta_net import all_slots
from ggufphys.graph.building.hyper_gated import GatedStreams
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32, I32

SMALLEST = 1e-6


def inp_ngrams(b: Builder) -> Tensor | None:
    """The rows of each token, one behind the other (E, T*S), looked up; None for models without such a layer."""
    n_heads = (b.h.ple_ngram_size - 1) * b.h.ple_heads_per_ngram if b.h.ple_layers else 0
    if n_heads == 0:
        return None
    rows = ops.new_input(I32, n_heads * b.batch.n_tokens, name="ngrams")
    found = ops.get_rows(b.weight("per_layer_token_embd.weight"), rows)
    return b.graph.expand(ops.reshape(found, found.ne[0] * n_heads, b.batch.n_tokens))


def add_ngrams(rs: Recurrent, of: GatedStreams, streams: Tensor, ngrams: Tensor, il: int) -> Tensor:
    """The streams (E, N, T*S) plus what they ask for of the n-grams (E, T*S), and a convolution of that."""
    b, (n_embd, n, n_tokens) = rs.b, streams.ne[:3]

    def normed(x: Tensor, name: str) -> Tensor:
        return of.normed(ops.reshape(x, n_embd, n, n_tokens), f"ple_norm_{name}", il)

    key = b.mul_mat(b.weight("ple_key.weight", il), ngrams)
    value = b.mul_mat(b.weight("ple_value.weight", il), ngrams)
    likeness = ops.sum_rows(ops.mul(normed(key, "key"), normed(streams, "query")))
    likeness = ops.scale(likeness, 1 / sqrtf(n_embd))
    size = ops.sqrt(ops.clamp(ops.unary(likeness, "abs"), SMALLEST, inf))
    gate = ops.unary(ops.mul(ops.unary(likeness, "sgn"), size), "sigmoid")
    value = ops.repeat(ops.reshape(value, n_embd, 1, n_tokens), n_embd, n, n_tokens)
    gated = ops.mul(value, gate)
    convolved = _convolved(rs, normed(ops.reshape(gated, n_embd * n, n_tokens), "conv"), il)
    return ops.add(streams, ops.add(gated, ops.reshape(convolved, n_embd, n, n_tokens)))


def _convolved(rs: Recurrent, x: Tensor, il: int) -> Tensor:
    """X (E, N, T*S), each channel by itself, over every `ple_ngram_size`th token: as many elements, dense."""
    b = rs.b
    kernel = b.weight("ple_conv1d.weight", il)
    n_kernel, gap, width = kernel.ne[0], b.h.ple_ngram_size, x.ne[0] * x.ne[1]
    x = ops.reshape(ops.reshape(x, width, b.batch.n_tokens), width, rs.n_seq_tokens, rs.n_seqs)
    x = rs.conv_input(x, il, all_slots(rs)[::-1], part="p", dense=True)
    out: Tensor | None = None
    for i in range(n_kernel):
        shifted = ops.strided(x, (rs.n_seq_tokens, width, rs.n_seqs), x.nb[1:3], i * gap * x.nb[0])
        shifted = ops.cont(ops.transpose(shifted))
        weights = ops.reshape(ops.cont(ops.strided(kernel, (1, width), (kernel.nb[1],), i * kernel.nb[0])), width)
        if weights.type is not F32:
            weights = ops.cast(weights, F32)
        term = ops.mul(shifted, weights)
        out = term if out is None else ops.add(out, term)
    assert out is not None
    return ops.cont(ops.unary(out, "silu"))
