"""step35: windows that rotate twice as many dimensions, a gate for each head, experts whose activations are limited.

Source: llama.cpp 0c1e570 src/models/step35.cpp, llama_model_step35::graph.
"""

from collections.abc import Callable

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building import head
from ggufphys.graph.building.attention import AttentionKV, Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import Rope, read_rope, read_rope_swa


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    x = b.inp_embd()
    layer = _layer(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        x = layer(x, il, out_ids)
    return b.head(b.rms(b.wanted_late(x, out_ids), "output_norm"))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    layer, out_ids = _layer(b), b.inp_out_ids()
    return head.end_wanted(b, layer(head.begin(b), b.h.n_layer), out_ids)


def _layer(b: Builder) -> Callable[..., Tensor]:
    """From stream to stream (E, T), given the layer and, of the trunk's, which tokens are wanted."""
    h = b.h
    full = read_rope(b.keys, h, "neox")
    rope_swa = read_rope_swa(b.keys, full, own_dims=True)
    full = replace(full, n_dims=full.n_dims // 2)
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=1 / sqrtf(h.n_embd_head_k)))
    routing = read_routing(b.keys, None if b.keys.integer("expert_gating_func", 0) else "sigmoid")
    ffn = dense_or_experts(b, routing, limited=True)

    def layer(x: Tensor, il: int, out_ids: Tensor | None = None) -> Tensor:
        rope, factors = (rope_swa, None) if b.has_window(il) else (full, b.rope_factors(il))
        normed = b.rms(x, "attn_norm", il)
        attended = _attention(b, attention[b.kv_cache(il)], normed, pos, rope, factors, il)
        if out_ids is not None:
            attended, x = b.wanted_early(out_ids, il, attended, x)
        residual = ops.add(attended, x)
        return ops.add(ffn(b.rms(residual, "ffn_norm", il), il), residual)

    return layer


def _attention(
    b: Builder, attention: AttentionKV, x: Tensor, pos: Tensor, rope: Rope, factors: Tensor | None, il: int
) -> Tensor:
    """(E, T) to (E, T): what each head finds is multiplied with one number."""
    h, n_head, n_head_kv, n_tokens = b.h, b.h.n_head[il], b.h.n_head_kv[il], b.batch.n_tokens
    if "step35_without_biases" in b.context.rules:
        q, k, v = (b.linear(name, il, x, biased=False) for name in ("attn_q", "attn_k", "attn_v"))
    else:
        q, k, v = b.qkv_flat(x, il)
    q, k = b.heads(q, h.n_embd_head_k, n_head), b.heads(k, h.n_embd_head_k, n_head_kv)
    q, k = (b.rms_if_gained(part, name, il) for part, name in ((q, "attn_q_norm"), (k, "attn_k_norm")))
    q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
    out = attention.mix(q, k, b.heads(v, h.n_embd_head_v, n_head_kv), il)
    if b.weight_or_none("attn_gate.weight", il) is not None:
        gate = ops.reshape(ops.unary(b.linear("attn_gate", il, x), "sigmoid"), 1, n_head, n_tokens)
        heads = ops.mul(ops.reshape(out, h.n_embd_head_v, n_head, n_tokens), gate)
        out = ops.reshape(heads, h.n_embd_head_v * n_head, n_tokens)
    return b.linear("attn_output", il, out, biased=False)
