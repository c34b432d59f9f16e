"""granite: factors on embeddings, scores, residuals and logits; experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/granite.cpp, llama_model_granite::graph; src/models/granite-moe.cpp.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.floats import quotient, sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import Rope, read_rope


def build(b: Builder) -> Graph:
    """granite: positions only where the file says so, or nothing."""
    return build_if_rotated(b, rotated=b.keys.flag("rope.scaling.finetuned", True))


def build_if_rotated(b: Builder, *, rotated: bool) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    keys = b.keys
    return build_with(
        b,
        read_rope(keys, b.h, "norm") if rotated else None,
        embedding_scale=keys.real("embedding_scale", 0.0),
        residual_scale=keys.real("residual_scale", 0.0),
        attention_scale=keys.real("attention.scale", 0.0),
        logit_scale=keys.real("logit_scale"),
    )


def build_with(
    b: Builder, rope: Rope | None,
    *, embedding_scale: float, residual_scale: float, attention_scale: float, logit_scale: float,
) -> Graph:  # fmt: skip
    """The whole graph of a model with these factors, 0 for none. Logits are divided by theirs."""
    x = b.inp_embd(embedding_scale)
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=attention_scale or 1 / sqrtf(b.h.n_embd_head_v)))
    out_ids = b.inp_out_ids()
    ffn = dense_or_experts(b, Routing(norm_weights=True))
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        if rope is not None:
            factors = b.rope_factors(il)
            q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(scaled(x, residual_scale), residual)
        x = ffn(b.rms(residual, "ffn_norm", il), il)
        x = ops.add(scaled(x, residual_scale), residual)
    return b.head(b.rms(x, "output_norm"), scale=quotient(1, logit_scale))


def scaled(x: Tensor, factor: float) -> Tensor:
    """X times the factor, unless that is 0."""
    return ops.scale(x, factor) if factor else x
