"""qwen3next: gated delta nets, gated attention in every fourth layer, and experts.

Legend: D head size, H heads of values, K heads of keys, T tokens of a sequence, N n_seqs.
Source: llama.cpp 0c1e570 src/models/qwen3next.cpp, llama_model_qwen3next::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import head
from ggufphys.graph.building.attention import AttentionKV, Scores, attentions
from ggufphys.graph.building.attention_alone import AttentionAlone
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.delta_net import all_slots, linear_attention
from ggufphys.graph.building.moe import moe_ffn, read_routing
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import Rope, read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    rs = Recurrent(b)
    attention = attentions(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_v)))
    pos = b.inp_pos()
    out_ids = b.inp_out_ids()
    wanted_early = "qwen3next_crops_early" in b.context.rules
    for il in b.layers():
        residual = x
        x = b.graph.expand(b.rms(x, "attn_norm", il))
        if b.recurrent(il) is not None:
            x = _linear_attention(b, rs, x, il)
        else:
            x = gated_attention(b, attention[b.kv_cache(il)], x, pos, rope, il)
        x, residual = (b.wanted if wanted_early else b.wanted_early)(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ffn(b, b.rms(residual, "post_attention_norm", il), il)
        x = ops.add(x, residual)
    x = b.rms(x, "output_norm")
    if wanted_early:
        return b.head(x)
    return b.head(b.wanted_late(x, out_ids))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    il, rope = b.h.n_layer, read_rope(b.keys, b.h, "neox")
    pos, out_ids = b.inp_pos(), b.inp_out_ids()
    residual = head.begin(b)
    x = b.norm_rms(residual, b.weight("attn_norm.weight", il))
    x = gated_attention(b, head_attention(b, il), x, pos, rope, il, reshaped=False)
    residual = ops.add(ops.get_rows(x, out_ids), ops.get_rows(residual, out_ids))
    x = ops.add(ffn(b, b.norm_rms(residual, b.weight("post_attention_norm.weight", il)), il), residual)
    x = head.normed(b, x)
    x.is_output = True
    return head.end(b, x)


def head_attention(b: Builder, il: int) -> AttentionKV:
    """The attention of the head's layer."""
    factor = b.keys.real("attention.scale", 0.0) or 1 / sqrtf(b.h.n_embd_head_v)
    return AttentionKV(b, b.kv_cache(il), Scores(factor=factor))


def gated_attention(
    b: Builder, attention: AttentionKV | AttentionAlone, x: Tensor, pos: Tensor, rope: Rope, il: int,
    *, reshaped: bool = True,
) -> Tensor:  # fmt: skip
    """Each head's query comes with a gate on what it finds: (E, T*N) to (E, T*N); one is cut from the other's heads."""
    both, k, v = b.qkv_flat(x, il, 2 * b.h.n_embd_head_v)
    if reshaped:
        both = ops.reshape(both, 2 * b.h.n_embd_head_v, b.h.n_head[il], b.batch.n_tokens, 1)
    return mix_gated(b, attention, (both, k, v), pos, rope, il)


def mix_gated(
    b: Builder, attention: AttentionKV | AttentionAlone, qkv: tuple[Tensor, Tensor, Tensor], pos: Tensor, rope: Rope,
    il: int, *, mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Gated attention from rows (D*H, T) of queries and gates, keys, and values. A `mask` replaces the cache's."""
    d, n_head, n_tokens = b.h.n_embd_head_v, b.h.n_head[il], b.batch.n_tokens
    both, k, v = qkv
    k, v = (b.heads(part, d, b.h.n_head_kv[il]) for part in (k, v))
    head = 2 * d * both.nb[0]
    q, gate = (ops.strided(both, (d, n_head, n_tokens), (head, head * n_head), i * head // 2) for i in range(2))
    q = b.rms(q, "attn_q_norm", il)
    k = b.rms(k, "attn_k_norm", il)
    x = attention.mix(b.rope(q, pos, None, rope), b.rope(k, pos, None, rope), v, il, mask=mask)
    x = ops.mul(x, ops.unary(ops.cont(gate, d * n_head, n_tokens), "sigmoid"))
    return b.linear("attn_output", il, x, biased=False)


def ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    """Experts, and a shared one with a gate of its own; dense where the layer has no experts."""
    if b.weight_or_none("ffn_gate_inp.weight", il) is None:
        return b.ffn_gated(x, il)
    out = moe_ffn(b, x, il, read_routing(b.keys, "softmax", norm_weights=True, weights_scale=0.0))
    if b.weight_or_none("ffn_up_shexp.weight", il) is None:
        return out
    shared = b.ffn_gated(x, il, suffix="_shexp")
    gate = ops.unary(b.mul_mat(b.weight("ffn_gate_inp_shexp.weight", il), x), "sigmoid")
    return ops.add(out, ops.mul(shared, gate))


def _linear_attention(b: Builder, rs: Recurrent, x: Tensor, il: int) -> Tensor:
    """A gated delta net: (E, T*N) to (E, T*N)."""
    n_tokens, n_seqs = rs.n_seq_tokens, rs.n_seqs
    n_k, n_v = b.h.ssm_n_group, b.keys.integer("ssm.time_step_rank")
    per_k = n_v // n_k
    qkv, z = _qkvz(b, rs, x, il)
    ba = ops.reshape(b.mul_mat(b.weight("ssm_ba.weight", il), x), 2 * per_k, n_k, n_tokens, n_seqs)
    beta = ops.strided(ba, (per_k, n_k, n_tokens, n_seqs), ba.nb[1:])
    alpha = ops.strided(ba, (per_k, n_k, n_tokens, n_seqs), ba.nb[1:], per_k * ba.nb[0])
    beta = ops.unary(ops.cont(beta), "sigmoid")
    alpha = ops.add(ops.cont(alpha, n_v, n_tokens, n_seqs), b.weight("ssm_dt.bias", il))
    gate = ops.mul(ops.unary(alpha, "softplus"), b.weight("ssm_a", il))
    beta, gate = (ops.reshape(part, 1, n_v, n_tokens, n_seqs) for part in (beta, gate))

    return linear_attention(b, rs, rs.conv_input(qkv, il, all_slots(rs)), z, gate, beta, il, repeat_keys=True)


def _qkvz(b: Builder, rs: Recurrent, x: Tensor, il: int) -> tuple[Tensor, Tensor]:
    """What is convolved to become Q, K and V (channels, T, N), and the gate on the result. Older files mix heads."""
    n_tokens, n_seqs = rs.n_seq_tokens, rs.n_seqs
    weight = b.weight_or_none("attn_qkv.weight", il)
    if weight is not None:
        qkv = b.mul_mat(weight, x)
        return ops.reshape(qkv, qkv.ne[0], n_tokens, n_seqs), b.mul_mat(b.weight("attn_gate.weight", il), x)
    h = b.h
    d_k, n_k = h.ssm_d_state, h.ssm_n_group
    sizes = (d_k, d_k, h.ssm_d_inner // n_k, h.ssm_d_inner // n_k)
    both = ops.reshape(b.mul_mat(b.weight("ssm_in.weight", il), x), sum(sizes), n_k, n_tokens, n_seqs)
    parts = [
        ops.strided(both, (size, n_k, n_tokens, n_seqs), both.nb[1:], sum(sizes[:i]) * both.nb[0])
        for i, size in enumerate(sizes)
    ]
    z = ops.cont(parts[3])
    q, k, v = (ops.cont(part, part.ne[0] * n_k, n_tokens, n_seqs) for part in parts[:3])
    return ops.concat(ops.concat(q, k, 0), v, 0), z
