"""bailingmoe3: Kimi delta attention with a bounded gate, gated latent attention in some layers, and experts.

Source: llama.cpp 0c1e570 src/models/bailingmoe3.cpp, llama_model_bailingmoe3::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import head, mla
from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.delta_net import convolved_parts, kda
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope, read_sections


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    sections = _sections(b)
    rope = read_rope(b.keys, b.h, "mrope" if sections else "norm", sections=sections)
    ffn = dense_or_experts(b, read_routing(b.keys), limited=True)
    x = b.inp_embd()
    rs = Recurrent(b)
    attention = mla.attention_k_or_none(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_k_mla)))
    pos = b.inp_pos(rope.n_pos_per_embd)
    out_ids = b.inp_out_ids()

    def rotate(part: Tensor) -> Tensor:
        return b.rope(part, pos, None, rope)

    for il in b.layers():
        residual = x
        x = b.rms(x, "attn_norm", il)
        if b.recurrent(il) is not None:
            x = _delta_attention(b, rs, x, il)
        else:
            assert attention is not None
            q = mla.absorbed(b, mla.queries(b, x, il), rope.n_dims, rotate, il)
            latent, k_pe = mla.compressed(b, x, rope.n_dims, rotate, il)
            x = _gated(b, mla.attend(b, attention, q, latent, k_pe, il), x, il)
        x, residual = b.wanted_early(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(ffn(b.rms(residual, "ffn_norm", il), il), residual)
    return b.head(b.wanted_late(b.rms(x, "output_norm"), out_ids))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    il, sections = b.h.n_layer, _sections(b)
    rope = read_rope(b.keys, b.h, "mrope" if sections else "norm", sections=sections)
    pos, out_ids = b.inp_pos(rope.n_pos_per_embd), b.inp_out_ids()
    attention = mla.attention_k(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_k_mla)))

    def rotate(part: Tensor) -> Tensor:
        return b.rope(part, pos, None, rope)

    residual = head.begin(b)
    x = b.norm_rms(residual, b.weight("attn_norm.weight", il))
    q = mla.absorbed(b, mla.queries(b, x, il), rope.n_dims, rotate, il)
    latent, k_pe = mla.compressed(b, x, rope.n_dims, rotate, il)
    residual = ops.add(_gated(b, mla.attend(b, attention, q, latent, k_pe, il), x, il), residual)
    ffn = dense_or_experts(b, read_routing(b.keys), limited=True)
    x = ops.add(ffn(b.norm_rms(residual, b.weight("ffn_norm.weight", il)), il), residual)
    return head.end_all(b, x, out_ids)


def _delta_attention(b: Builder, rs: Recurrent, x: Tensor, il: int) -> Tensor:
    """(E, T*N) to (E, T*N); the decay is at most `kda.gate_lower_bound` in its logarithm."""
    n_head, n_tokens = b.h.n_head[0], b.batch.n_tokens
    q, k, v = (ops.mul_mat(b.weight(f"attn_{name}.weight", il), x) for name in "qkv")
    q, k, v = convolved_parts(rs, (q, k, v), il)
    gate = ops.add(ops.mul_mat(b.weight("ssm_f_a.weight", il), x), b.weight("ssm_dt.bias", il))
    gate = ops.reshape(gate, b.h.n_embd_head_kda, n_head, n_tokens)
    gate = ops.unary(ops.mul(gate, ops.reshape(b.weight("ssm_a", il), 1, n_head, 1)), "sigmoid")
    gate = ops.scale(gate, b.keys.real("kda.gate_lower_bound"))
    beta = ops.mul_mat(b.weight("ssm_beta.weight", il), x)
    return kda(rs, q, k, v, gate, beta, ops.mul_mat(b.weight("ssm_g_a.weight", il), x), il)


def _gated(b: Builder, found: Tensor, x: Tensor, il: int) -> Tensor:
    """What heads found (D*H, T), each times a gate that is computed from X, projected: (E, T)."""
    n_head, n_tokens = b.h.n_head[0], b.batch.n_tokens
    gate = ops.mul_mat(b.weight("attn_gate.weight", il), x)
    gate = ops.unary(ops.reshape(gate, 1, n_head, n_tokens), "sigmoid")
    found = ops.mul(ops.reshape(found, b.h.n_embd_head_v_mla, n_head, n_tokens), gate)
    return ops.mul_mat(b.weight("attn_output.weight", il), ops.cont(found, found.ne[0] * n_head, n_tokens))


def _sections(b: Builder) -> tuple[int, ...]:
    """How rotations are divided among a token's positions; empty: it has one."""
    return () if "bailingmoe3_positions" in b.context.rules else read_sections(b.keys)
