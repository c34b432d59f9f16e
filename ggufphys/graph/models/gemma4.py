"""gemma4: heads of other sizes in windows, inputs for each layer, experts beside a dense layer, and late layers that
read the caches of earlier ones.

Source: llama.cpp 0c1e570 src/models/gemma4.cpp, llama_model_gemma4::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Experts, Routing, moe_ffn
from ggufphys.graph.building.shared_kv import owner
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models.gemma3n import inputs_per_layer, plane, rows_per_layer, stretch
from ggufphys.graph.rope import read_rope, read_rope_swa


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    n_layer_kv = h.n_layer_all - h.n_kv_shared_layers
    full = read_rope(b.keys, h, "neox")
    rope_swa = read_rope_swa(b.keys, full, own_dims=True)
    has_inputs = b.weight_or_none("per_layer_token_embd.weight") is not None
    rows = rows_per_layer(b) if has_inputs else None
    rows_first = "rows_first" in b.context.rules
    if rows is not None and rows_first:
        b.graph.expand(rows)
    x = b.inp_embd(token_scale=sqrtf(h.n_embd))
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=1.0))
    at_once = not rows_first and "layer_inputs_late" not in b.context.rules
    inp_per_layer = None if rows is None else inputs_per_layer(b, x, rows, at_once=at_once)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        source = owner(b, il, n_layer_kv)
        cache, is_swa = b.kv_cache(source), b.has_window(source)
        rope, factors = (rope_swa, None) if is_swa else (full, b.weight_or_none("rope_freqs.weight"))
        q, k, v = _qkv(
            b, b.rms(x, "attn_norm", il), il, b.n_embd_head(cache)[0], is_shared=b.kv_cache_or_none(il) is None
        )
        q = b.rope(b.rms(q, "attn_q_norm", il), pos, factors, rope)
        if k is not None and v is not None:
            k = b.rope(b.rms(k, "attn_k_norm", il), pos, factors, rope)
            v = b.norm_rms(v, None)
        x = attention[cache](q, k, v, il, cache_of=source, biased=False)
        x, residual = b.wanted_early(out_ids, il, x, residual)
        residual = ops.add(b.rms(x, "post_attention_norm", il), residual)
        x = ops.add(b.rms(_ffn(b, residual, il), "post_ffw_norm", il), residual)
        if inp_per_layer is not None:
            gate = ops.unary(b.linear("inp_gate", il, x), "gelu")
            (own,) = b.wanted_early(out_ids, il, plane(inp_per_layer, il))
            x = ops.add(x, b.rms(b.linear("proj", il, ops.mul(gate, own)), "post_norm", il))
        out_scale = b.weight_or_none("layer_output_scale.weight", il)
        if out_scale is not None:
            x = ops.mul(x, out_scale)
    x = b.wanted_late(b.rms(x, "output_norm"), out_ids)
    return b.head(x, softcap=b.keys.real("final_logit_softcapping", 30.0))


def _qkv(
    b: Builder, x: Tensor, il: int, n_embd_head: int, *, is_shared: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Queries (D, H, T); keys and values (D, K, T) unless another layer's are read. Keys may serve as values."""
    n_head, n_head_kv = b.h.n_head[il], b.h.n_head_kv[il]
    if b.weight_or_none("attn_qkv.weight", il) is not None:
        x = b.linear("attn_qkv", il, x, biased=False)
        q = stretch(x, 0, n_embd_head * n_head)
        k = stretch(x, n_embd_head * n_head, n_embd_head * n_head_kv)
        v = stretch(x, n_embd_head * (n_head + n_head_kv), n_embd_head * n_head_kv)
    else:
        q = b.linear("attn_q", il, x, biased=False)
        if is_shared:
            return b.heads(q, n_embd_head, n_head), None, None
        k = b.linear("attn_k", il, x, biased=False)
        has_v = b.weight_or_none("attn_v.weight", il) is not None
        v = b.linear("attn_v", il, x, biased=False) if has_v else k
    q = b.heads(q, n_embd_head, n_head)
    if is_shared:
        return q, None, None
    return q, b.heads(k, n_embd_head, n_head_kv), b.heads(v, n_embd_head, n_head_kv)


def _ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    """Dense, or a dense layer and experts side by side, each between norms of its own."""
    dense = b.ffn_gated(b.rms(x, "ffn_norm", il), il, "geglu", biased=False)
    router = b.weight_or_none("ffn_gate_inp.weight", il)
    if router is None:
        return dense
    dense = b.rms(dense, "post_ffw_norm_1", il)
    normed = ops.scale(b.norm_rms(x, None), 1 / sqrtf(b.h.n_embd))
    logits = b.mul_mat(router, ops.mul(normed, b.weight("ffn_gate_inp.scale", il)))
    experts = b.rms(x, "pre_ffw_norm_2", il)
    experts = moe_ffn(b, experts, il, Routing(norm_weights=True), Experts(kind="geglu"), logits=logits)
    return ops.add(dense, b.rms(experts, "post_ffw_norm_2", il))
