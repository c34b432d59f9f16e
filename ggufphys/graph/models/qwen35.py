"""qwen35 and qwen35moe: as qwen3next, dense or with experts, and positions of several axes.

Source: llama.cpp 0c1e570 src/models/qwen35.cpp, llama_model_qwen35::graph; src/models/qwen35moe.cpp.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import head
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.delta_net import all_slots, linear_attention
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models.qwen3next import ffn, gated_attention, head_attention
from ggufphys.graph.rope import read_rope, read_sections


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "imrope", sections=read_sections(b.keys))
    x = b.inp_embd()
    rs = Recurrent(b)
    attention = attentions(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_v)))
    pos = b.inp_pos(rope.n_pos_per_embd)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = b.graph.expand(b.rms(x, "attn_norm", il))
        if b.recurrent(il) is not None:
            x = _linear_attention(b, rs, x, il)
        else:
            x = gated_attention(b, attention[b.kv_cache(il)], x, pos, rope, il, reshaped=False)
        x, residual = b.wanted_early(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ffn(b, b.rms(residual, "post_attention_norm", il), il)
        x = ops.add(x, residual)
    return b.head(b.wanted_late(b.rms(x, "output_norm"), out_ids))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    il, rope = b.h.n_layer, read_rope(b.keys, b.h, "imrope", sections=read_sections(b.keys))
    pos, out_ids = b.inp_pos(rope.n_pos_per_embd), b.inp_out_ids()
    residual = head.begin(b)
    x = b.norm_rms(residual, b.weight("attn_norm.weight", il))
    residual = ops.add(gated_attention(b, head_attention(b, il), x, pos, rope, il, reshaped=False), residual)
    x = ops.add(ffn(b, b.norm_rms(residual, b.weight("post_attention_norm.weight", il)), il), residual)
    return head.end_all(b, x, out_ids)


def _linear_attention(b: Builder, rs: Recurrent, x: Tensor, il: int) -> Tensor:
    """A gated delta net: (E, T*N) to (E, T*N)."""
    qkv, z, gate, beta = delta_net_parts(b, rs, x, il)
    return linear_attention(b, rs, rs.conv_input(qkv, il, all_slots(rs)), z, gate, beta, il)


def delta_net_parts(b: Builder, rs: Recurrent, x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is convolved to become Q, K and V (channels, T, N); the gates on the result, on what is kept, and beta."""
    n_tokens, n_seqs, n_head = rs.n_seq_tokens, rs.n_seqs, b.keys.integer("ssm.time_step_rank")
    qkv, z = b.linear("attn_qkv", il, x), b.linear("attn_gate", il, x)
    beta = ops.unary(ops.reshape(b.linear("ssm_beta", il, x), 1, n_head, n_tokens, n_seqs), "sigmoid")
    shaped = ops.cont if "delta_nets_in_chunks" in b.context.rules else ops.reshape
    alpha = shaped(b.linear("ssm_alpha", il, x), n_head, n_tokens, n_seqs)
    gate = ops.unary(ops.add(alpha, b.weight("ssm_dt.bias", il)), "softplus")
    gate = ops.reshape(ops.mul(gate, b.weight("ssm_a", il)), 1, n_head, n_tokens, n_seqs)
    return ops.reshape(qkv, qkv.ne[0], n_tokens, n_seqs), z, gate, beta
