"""grok: factors on embeddings and logits, capped scores, norms behind each half of a layer, experts with GELU.

Source: llama.cpp 0c1e570 src/models/grok.cpp, llama_model_grok::graph.
"""

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Experts, Routing, moe_ffn
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    keys = b.keys
    rope = replace(
        read_rope(keys, b.h, "neox"),
        beta_fast=keys.real("rope.scaling.yarn_beta_fast", 8.0),
        beta_slow=keys.real("rope.scaling.yarn_beta_slow", 1.0),
    )
    scores = Scores(
        factor=1.0,
        softcap=keys.real("attn_logit_softcapping", 30.0),
        before_cap=keys.real("attention.output_scale", 0.08838834764831845),
    )
    x = b.inp_embd(keys.real("embedding_scale", 78.38367176906169))
    pos = b.inp_pos()
    attention = attentions(b, scores)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(b.rms(x, "attn_output_norm", il), residual)
        x = _ffn(b, b.rms(residual, "ffn_norm", il), il)
        is_renamed = b.weight_or_none("layer_output_norm.weight", il) is not None
        x = ops.add(b.rms(x, "layer_output_norm" if is_renamed else "post_ffw_norm", il), residual)
    scale = keys.real("logit_scale", 0.5773502691896257)
    return b.head(b.rms(x, "output_norm"), scale=scale, softcap=keys.real("final_logit_softcapping", 0.0))


def _ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    """Experts, and a dense layer of equal weight beside them if there is one."""
    experts = moe_ffn(b, x, il, Routing(norm_weights=True), Experts(kind="geglu"))
    if b.weight_or_none("ffn_up.weight", il) is None:
        return experts
    return ops.scale(ops.add(b.ffn_gated(x, il, "geglu"), experts), sqrtf(2) / 2)
