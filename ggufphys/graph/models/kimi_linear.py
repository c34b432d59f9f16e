"""kimi-linear: Kimi delta attention, latent attention without positions in some layers, and experts.

Source: llama.cpp 0c1e570 src/models/kimi-linear.cpp, llama_model_kimi_linear::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import mla
from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.delta_net import convolved_parts, kda
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    n_rot = b.keys.integer("rope.dimension_count", b.h.n_embd_head_k)
    ffn = dense_or_experts(b, read_routing(b.keys, norm_weights=True), shared_always=True)
    x = b.inp_embd()
    rs = Recurrent(b)
    attention = mla.attention_k_or_none(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_k_mla)))
    out_ids = b.inp_out_ids()

    def unrotated(part: Tensor) -> Tensor:
        return part

    for il in b.layers():
        residual = x
        x = b.graph.expand(b.rms(x, "attn_norm", il))
        if b.recurrent(il) is not None:
            x = _delta_attention(b, rs, x, il)
        else:
            assert attention is not None
            q = mla.queries(b, x, il)
            latent, k_pe = mla.compressed(b, x, n_rot, unrotated, il)
            x = mla.attend(b, attention, mla.absorbed(b, q, n_rot, unrotated, il), latent, k_pe, il)
            x = b.linear("attn_output", il, x)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(ffn(b.rms(residual, "ffn_norm", il), il), residual)
    return b.head(b.rms(x, "output_norm"))


def _delta_attention(b: Builder, rs: Recurrent, x: Tensor, il: int) -> Tensor:
    """(E, T*N) to (E, T*N); the gates come of products of low rank."""
    n_head, n_tokens = b.h.n_head[0], b.batch.n_tokens
    q, k, v = convolved_parts(rs, _qkv(b, x, il), il)

    def low_rank(name: str, y: Tensor) -> Tensor:
        y = ops.mul_mat(b.weight(f"ssm_{name}_a.weight", il), y)
        return ops.mul_mat(b.weight(f"ssm_{name}_b.weight", il), y)

    gate = ops.unary(ops.add(low_rank("f", x), b.weight("ssm_dt.bias", il)), "softplus")
    gate = ops.reshape(gate, b.h.n_embd_head_kda, n_head, n_tokens)
    gate = ops.mul(gate, ops.reshape(b.weight("ssm_a", il), 1, n_head, 1))
    beta = ops.mul_mat(b.weight("ssm_beta.weight", il), x)
    x = ops.reshape(ops.reshape(x, x.ne[0], rs.n_seq_tokens, rs.n_seqs), x.ne[0], n_tokens)
    return kda(rs, q, k, v, gate, beta, low_rank("g", x), il)


def _qkv(b: Builder, x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K and V (D*H, T*N), slices of one product or three."""
    weight = b.weight_or_none("attn_qkv.weight", il)
    if weight is None:
        q, k, v = (ops.mul_mat(b.weight(f"attn_{name}.weight", il), x) for name in "qkv")
        return q, k, v
    both = ops.mul_mat(weight, x)
    d_inner = b.h.n_embd_head_kda * b.h.n_head[0]
    q, k, v = (
        ops.cont(ops.strided(both, (d_inner, x.ne[1]), (both.nb[1],), i * d_inner * both.nb[0])) for i in range(3)
    )
    return q, k, v
