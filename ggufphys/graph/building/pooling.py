"""Embeddings of tokens become one of each sequence: what contexts for embeddings add behind the model's graph.

Source: llama.cpp 0c1e570 src/llama-model.cpp, build_graph; src/llama-graph.cpp, build_pooling, build_dense_out.
"""

from typing import Final

from ggufphys.arch.pooling import GELU_CLASSIFIERS, SCORES_ARE_SHARES
from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32, I32

MEAN: Final = 1  # classifier.pooling_type


def pool(b: Builder) -> None:
    """Expand the graph by the pooled embeddings (E, N) or scores, and by dense layers behind them if there are any."""
    if b.embd is None:
        return
    pooled = _pooled(b, b.embd)
    out = _dense(b, pooled or b.embd)
    for x in (pooled, out):
        if x is not None and x is not b.embd:
            b.graph.expand(x)
    if out is not b.embd:
        out.is_output = True


def _pooled(b: Builder, x: Tensor) -> Tensor | None:
    match b.context.pooling:
        case "mean":
            return _mean(b, x)
        case "cls" | "last":
            return _one(b, x)
        case "rank":
            kind = b.keys.integer("classifier.pooling_type", MEAN if b.h.arch in GELU_CLASSIFIERS else -1)
            return _scores(b, _mean(b, x) if kind == MEAN else _one(b, x))
        case _:
            return None


def _mean(b: Builder, x: Tensor) -> Tensor:
    shares = ops.new_input(F32, b.batch.n_tokens, b.batch.n_seqs, name="mean")
    return ops.mul_mat(ops.cont(ops.transpose(x)), shares)


def _one(b: Builder, x: Tensor) -> Tensor:
    return ops.get_rows(x, ops.new_input(I32, b.batch.n_seqs, name="cls"))


def _scores(b: Builder, x: Tensor) -> Tensor:
    if (cls := b.weight_or_none("cls.weight")) is not None:
        x = _with_bias(b, ops.mul_mat(cls, x), "cls.bias")
        x = ops.unary(x, "gelu" if b.h.arch in GELU_CLASSIFIERS else "tanh")
        if (gain := b.weight_or_none("cls.norm.weight")) is not None:
            x = b.norm(x, gain)
    if (out := b.weight_or_none("cls.output.weight")) is not None:
        x = _with_bias(b, ops.mul_mat(out, x), "cls.output.bias")
    return ops.soft_max(x) if b.h.arch in SCORES_ARE_SHARES else x


def _dense(b: Builder, x: Tensor) -> Tensor:
    for name in ("dense_2", "dense_3"):
        if (weight := b.weight_or_none(f"{name}.weight")) is not None:
            x = _with_bias(b, ops.mul_mat(weight, x), f"{name}.bias")
    return x


def _with_bias(b: Builder, x: Tensor, name: str) -> Tensor:
    bias = b.weight_or_none(name)
    return x if bias is None else ops.add(x, bias)
