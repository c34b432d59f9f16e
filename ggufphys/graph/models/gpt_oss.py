"""gpt-oss: windows in every other layer, sinks, experts with biases and a clamped SwiGLU.

Source: llama.cpp 0c1e570 src/models/openai-moe.cpp, llama_model_openai_moe::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import OAI_EXPERTS, Routing, moe_ffn
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.rope import read_rope, read_rope_swa_alike


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    full = read_rope(b.keys, b.h, "neox")
    rope_swa = read_rope_swa_alike(b.keys, full)
    n_rot = full.n_dims
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=1 / sqrtf(n_rot)))
    out_ids = b.inp_out_ids()
    wanted_early = "gpt_oss_crops_early" in b.context.rules
    for il in b.layers():
        rope = rope_swa if b.has_window(il) else full
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il, n_rot, n_rot)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il, sinks=b.weight_or_none("attn_sinks.weight", il))
        x, residual = (b.wanted if wanted_early else b.wanted_early)(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = b.rms(residual, "post_attention_norm", il)
        x = moe_ffn(b, x, il, Routing(gating="softmax_weight"), OAI_EXPERTS)
        x = ops.add(x, residual)
    if wanted_early:
        return b.head(b.rms(x, "output_norm"))
    return b.head(b.rms(b.wanted_late(x, out_ids), "output_norm"))
