"""Prediction heads (MTP, NextN): one more layer, which reads the next token beside what the trunk made of this one.

A draft context runs the first of them alone; it predicts the token after the next.

Legend: E n_embd, T tokens, P outputs. Source: llama.cpp 0c1e570 src/models/, the graph_mtp of each architecture.
"""

from collections.abc import Callable

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F32, I32

Gain = Callable[[Tensor, Tensor], Tensor]
"""A norm, of a tensor and its gain."""


def embedded(b: Builder) -> Tensor:
    """The embeddings of the tokens (E, T), by a table of the head's own if it has one."""
    table = b.weight_or_none("nextn.embed_tokens.weight", b.h.n_layer) or b.weight("token_embd.weight")
    return ops.get_rows(table, ops.new_input(I32, b.batch.n_tokens, name="tokens"))


def begin(b: Builder, norm: Gain | None = None) -> Tensor:
    """The stream that the head's layer works on (E, T), from tokens and the trunk's hidden states."""
    norm, il = norm or b.norm_rms, b.h.n_layer
    hidden = ops.new_input(F32, b.h.n_embd, b.batch.n_tokens, name="h")
    token = norm(embedded(b), b.weight("nextn.enorm.weight", il))
    hidden = norm(hidden, b.weight("nextn.hnorm.weight", il))
    return b.linear("nextn.eh_proj", il, ops.concat(token, hidden, 0), biased=False)


def normed(b: Builder, x: Tensor, norm: Gain | None = None) -> Tensor:
    """What logits are computed from, by the head's own norm or the trunk's."""
    names = ("nextn.shared_head_norm.weight", "layer_output_norm.weight")
    own = (gain for name in names if (gain := b.weight_or_none(name, b.h.n_layer)) is not None)
    return (norm or b.norm_rms)(x, next(own, None) or b.weight("output_norm.weight"))


def end(b: Builder, x: Tensor, *, scale: float = 0.0) -> Graph:
    """From (E, P) to logits (n_vocab, P), by the head's own matrix or the trunk's; `scale` multiplies them unless 0."""
    own = b.weight_or_none("nextn.shared_head_head.weight", b.h.n_layer)
    matrix = own or b.weight_or_none("output.weight") or b.weight("token_embd.weight")
    logits = b.mul_mat(matrix, x, _scale(b, own))
    return b.embeddings(ops.scale(logits, scale) if scale else logits)


def _scale(b: Builder, own: Tensor | None) -> Tensor | None:
    if own is not None:
        return b.scale_of("nextn.shared_head_head", b.h.n_layer)
    return b.weight_or_none("output.scale") if "nextn.output" in b.scaled else None


def end_all(b: Builder, x: Tensor, out_ids: Tensor) -> Graph:
    """From the stream (E, T): all normed states are kept, for heads behind this one, logits computed of some."""
    x = normed(b, x)
    x.is_output = True
    return end(b, ops.get_rows(x, out_ids))


def end_wanted(b: Builder, x: Tensor, out_ids: Tensor) -> Graph:
    """From the stream (E, T): only the wanted states are kept, before the norm, and logits computed of them."""
    x = ops.get_rows(x, out_ids)
    x.is_output = True
    return end(b, normed(b, x))
