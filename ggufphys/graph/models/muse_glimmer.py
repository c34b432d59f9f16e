"""muse-glimmer: normed embeddings, gated attention, windows that alone rotate, norms of their own precision.

Source: llama.cpp 0c1e570 src/models/muse-glimmer.cpp, llama_model_muse_glimmer::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope, read_rope_swa

POST_NORM_EPS = 1e-8


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    keys = b.keys
    full = read_rope(keys, b.h, "norm")
    rope = read_rope_swa(keys, full, freq_base=full.freq_base)
    x = b.norm_rms(b.inp_embd(), None)
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        normed = b.rms(x, "attn_norm", il)
        q, k, v = b.qkv(normed, il)
        q, k = b.rms(q, "attn_q_norm", il), b.rms(k, "attn_k_norm", il)
        if b.has_window(il):
            q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)].mix(q, k, v, il)
        x = ops.mul(x, ops.unary(b.linear("attn_gate", il, normed), "sigmoid"))
        x = _post_norm(b, b.linear("attn_output", il, x), "post_attention_norm", il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = _post_norm(b, b.ffn_gated(b.rms(residual, "ffn_norm", il), il), "post_ffw_norm", il)
        x = ops.add(x, residual)
    x = b.rms(x, "output_norm")
    return b.head(x, scale=keys.real("logit_scale"), softcap=keys.real("final_logit_softcapping", 30.0))


def _post_norm(b: Builder, x: Tensor, name: str, il: int) -> Tensor:
    return ops.mul(ops.rms_norm(x, POST_NORM_EPS), b.weight(f"{name}.weight", il))
