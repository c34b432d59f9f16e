"""nemotron_h and nemotron_h_moe: each layer is a state space layer, attention, or a feed-forward part alone.

Source: llama.cpp 0c1e570 src/models/nemotron-h.cpp, llama_model_nemotron_h::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import head, ssm
from ggufphys.graph.building.attention import AttentionKV, Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Experts, moe_ffn, read_routing
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    b.norm_rms_eps = b.keys.real("attention.layer_norm_rms_epsilon", b.norm_eps)
    x = b.inp_embd()
    rs = Recurrent(b)
    attention = attentions(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_v)))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = b.rms(x, "attn_norm", il)
        if b.recurrent(il) is not None:
            x = ssm.mamba2(b, rs, x, il)
        elif b.kv_cache_or_none(il) is not None:
            x = attention[b.kv_cache(il)](*b.qkv(x, il), il)
        else:
            x = _ffn(b, x, il)
        x, residual = b.wanted_early(out_ids, il, x, residual)
        x = ops.add(x, residual)
    return b.head(b.wanted_late(b.rms(x, "output_norm"), out_ids))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    b.norm_rms_eps = b.keys.real("attention.layer_norm_rms_epsilon", b.norm_eps)
    il, out_ids = b.h.n_layer, b.inp_out_ids()
    factor = b.keys.real("attention.scale", 0.0) or 1 / sqrtf(b.h.n_embd_head_v)
    attention = AttentionKV(b, b.kv_cache(il), Scores(factor=factor))
    residual = head.begin(b)
    q, k, v = b.qkv(b.norm_rms(residual, b.weight("attn_norm.weight", il)), il)
    residual = ops.get_rows(ops.add(attention(q, k, v, il), residual), out_ids)
    x = _ffn(b, b.norm_rms(residual, b.weight("post_attention_norm.weight", il)), il)
    x = head.normed(b, ops.add(x, residual), b.norm)
    x.is_output = True
    return head.end(b, x)


def _ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    """relu(x)^2 throughout; experts may work on fewer elements, the shared one never does."""
    if b.weight_or_none("ffn_gate_inp.weight", il) is None:
        return b.ffn_plain(x, il, None)
    narrow, wide = (b.weight_or_none(f"ffn_latent_{way}.weight", il) for way in ("down", "up"))
    latent = x if narrow is None else ops.mul_mat(narrow, x)
    logits = b.mul_mat(b.weight("ffn_gate_inp.weight", il), x)
    n_used = b.h.n_expert_used_by_layer[il]
    out = moe_ffn(b, latent, il, read_routing(b.keys, "sigmoid"), Experts(plain=None), logits=logits, n_used=n_used)
    if wide is not None:
        out = ops.mul_mat(wide, out)
    return ops.add(out, b.ffn_plain(x, il, None, "_shexp"))
