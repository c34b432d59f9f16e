"""k2-horizon: norms over groups of neighbours, experts for values too, a gate for what attention finds.

Source: llama.cpp b11549 src/models/k2-horizon.cpp, llama_model_k2_horizon::graph.
"""

from typing import Final

from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionKV, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.moe import Routing, read_routing, scaled_weights
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import Rope, read_rope

_LN2: Final = 0.6931471805599453


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    routing = read_routing(b.keys, None if b.keys.integer("expert_gating_func", 0) else "sigmoid")
    ffn = dense_or_experts(b, routing, biased=False)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = _attention(b, attention[b.kv_cache(il)], _group_norm(b, x, "attn_norm", il), pos, rope, routing, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(ffn(_group_norm(b, residual, "ffn_norm", il), il), residual)
    return b.head(_group_norm(b, x, "output_norm"))


def _group_norm(b: Builder, x: Tensor, name: str, il: int | None = None) -> Tensor:
    """RMS norm over each of so many equal stretches of a row, then one gain as wide as the row."""
    n_groups = b.keys.integer("attention.group_norm_groups", 0) or 1
    n_embd, n_tokens = x.ne[:2]
    x = ops.rms_norm(ops.reshape(x, n_embd // n_groups, n_groups, n_tokens), b.norm_rms_eps)
    return ops.mul(ops.reshape(x, n_embd, n_tokens), b.weight(f"{name}.weight", il))


def _attention(
    b: Builder, attention: AttentionKV, x: Tensor, pos: Tensor, rope: Rope, routing: Routing, il: int
) -> Tensor:
    """(E, T) to (E, T); each head of queries and keys has a gain of its own."""
    h = b.h
    q, k = (b.linear(name, il, x, biased=False) for name in ("attn_q", "attn_k"))
    has_experts = b.weight_or_none("attn_v_exps.weight", il) is not None
    v = _routed_values(b, x, routing, il) if has_experts else b.linear("attn_v", il, x, biased=False)
    q, k = b.heads(q, h.n_embd_head_k, h.n_head[il]), b.heads(k, h.n_embd_head_k, h.n_head_kv[il])
    v = b.heads(v, h.n_embd_head_v, h.n_head_kv[il])
    q, k = (b.rope(_head_norm(b, part, name, il), pos, None, rope) for part, name in ((q, "q"), (k, "k")))
    out = attention.mix(q, k, v, il)
    if b.weight_or_none("attn_gate.weight", il) is not None:  # log2(1 + 2^x)
        gate = ops.scale(b.linear("attn_gate", il, x, biased=False), _LN2)
        out = ops.mul(out, ops.scale(ops.unary(gate, "softplus"), 1 / _LN2))
    return b.linear("attn_output", il, out)


def _head_norm(b: Builder, x: Tensor, name: str, il: int) -> Tensor:
    gain = b.weight_or_none(f"attn_{name}_norm.weight", il)
    return x if gain is None else b.norm_rms(x, ops.weight(gain.type, *x.ne[:2], name=gain.name))


def _routed_values(b: Builder, x: Tensor, routing: Routing, il: int) -> Tensor:
    """The sum of the chosen experts' values (D*K, T), each times its weight."""
    n_embd, n_tokens = x.ne[:2]
    n_used = b.keys.integer("attention.value_expert_used_count", 0)
    logits = b.mul_mat(b.weight("attn_v_gate.weight", il), x)
    probs = ops.soft_max(logits) if routing.gating == "softmax" else ops.unary(logits, "sigmoid")
    bias = b.weight_or_none("attn_v_gate.bias", il)
    chosen = ops.argsort_top_k(probs if bias is None else ops.add(probs, bias), n_used)
    weights = ops.get_rows(ops.reshape(probs, 1, probs.ne[0], n_tokens), chosen)
    weights = scaled_weights(weights, routing)
    values = b.mul_mat_id(b.weight("attn_v_exps.weight", il), ops.reshape(x, n_embd, 1, n_tokens), chosen)
    values = ops.mul(ops.unary(values, "silu"), weights)  # (D*K, n_used, T)
    shape = (values.ne[0], 1, n_tokens)
    parts = [b.graph.expand(ops.view(values, shape, values.nb, i * values.nb[1])) for i in range(n_used)]
    out = parts[0]
    for part in parts[1:]:
        out = b.graph.expand(ops.add(out, part))
    return ops.cont(out) if n_used == 1 else out
