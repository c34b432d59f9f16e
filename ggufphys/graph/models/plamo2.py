"""plamo2: state space layers whose dt, B and C are normed, attention in some layers, norms before and after each part.

Source: llama.cpp 0c1e570 src/models/plamo2.cpp, llama_model_plamo2::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope
from ggufphys.graph.ssm_ops import ssm_conv, ssm_scan


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    pos = b.inp_pos()
    rs = Recurrent(b)
    attention = attentions(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_v)))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = b.rms(x, "attn_norm", il)
        if b.recurrent(il) is not None:
            x = _mamba(b, rs, x, il)
        else:
            q, k, v = b.qkv(x, il)
            q = b.rope(b.rms(q, "attn_q_norm", il), pos, None, rope)
            k = b.rope(b.rms(k, "attn_k_norm", il), pos, None, rope)
            x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(b.norm_rms(x, b.weight("post_attention_norm", il)), residual)
        x = b.ffn_halves(b.rms(residual, "ffn_norm", il), il)
        x = ops.add(b.norm_rms(x, b.weight("post_ffw_norm", il)), residual)
    return b.head(b.rms(x, "output_norm"))


def _mamba(b: Builder, rs: Recurrent, x: Tensor, il: int) -> Tensor:
    """X (E, T*N) to (E, T*N): heads as in mamba 2, but B, C and dt come of the convolved channels as in mamba."""
    h, n_seqs, n_tokens = b.h, rs.n_seqs, rs.n_seq_tokens
    d_inner, d_state, n_head = h.ssm_d_inner, h.ssm_d_state, b.keys.integer("ssm.time_step_rank")
    d, dt_dim = d_inner // n_head, max(64, h.n_embd // 16)
    shape = (d, n_head, n_tokens, n_seqs)

    both = b.linear("ssm_in", il, ops.reshape(x, x.ne[0], n_tokens, n_seqs))
    both = ops.cont(ops.permute(both, 0, 2, 1, 3), 2 * d, *shape[1:])
    x = ops.cont(ops.strided(both, shape, both.nb[1:], d * both.nb[0]), d_inner, n_tokens, n_seqs)
    z = ops.strided(both, shape, both.nb[1:])
    x = rs.conv_input(x, il)
    x = ops.unary(ssm_conv(x, b.weight("ssm_conv1d.weight", il)), "silu")

    bcdt = b.linear("ssm_x", il, x)
    size, *strides = bcdt.nb[:3]
    in_b, out_c, dt = (
        ops.strided(bcdt, (n, n_tokens, n_seqs), tuple(strides), offset * size)
        for n, offset in ((d_state, 0), (d_state, d_state), (dt_dim, 2 * d_state))
    )
    in_b = b.norm_rms(in_b, b.weight("ssm_b_norm", il))
    out_c = b.norm_rms(out_c, b.weight("ssm_c_norm", il))
    dt = b.norm_rms(dt, b.weight("ssm_dt_norm", il))
    dt = b.linear("ssm_dt", il, dt)
    a = ops.reshape(b.weight("ssm_a", il), 1, n_head)
    heads = d * size, d_inner * size, d_inner * n_tokens * size
    x = ops.strided(x, shape, heads)
    in_b, out_c = (
        ops.strided(part, (d_state, 1, n_tokens, n_seqs), (d_state * size, *part.nb[1:3])) for part in (in_b, out_c)
    )

    def scan(states: Tensor, ids: Tensor) -> Tensor:
        states = ops.reshape(states, d_state, d, n_head, states.ne[1])
        return ssm_scan(states, x, dt, a, in_b, out_c, ids)

    result = rs.read(rs.rows("s", il), scan)
    rs.store_states(result, d_inner * n_tokens * n_seqs * size, il)
    y = ops.strided(result, shape, heads)
    y = ops.add(y, ops.mul(x, ops.reshape(b.weight("ssm_d", il), 1, n_head)))
    y = ops.glu(ops.cont(z), y)
    y = b.linear("ssm_out", il, ops.strided(y, (d_inner, n_tokens, n_seqs), y.nb[2:]))
    return ops.reshape(y, y.ne[0], n_tokens * n_seqs)
