"""kimi-k3: as kimi-linear, with gates on attention, latent experts, and layers that look back at the stream of others.

Source: llama.cpp 0c1e570 src/models/kimi-k3.cpp, llama_model_kimi_k3::graph.
"""

from functools import partial

from ggufphys.graph import ops
from ggufphys.graph.building import mla
from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.delta_net import all_slots, convolved_parts, decay_gate, kda
from ggufphys.graph.building.hyper import hc_pre
from ggufphys.graph.building.moe import Experts, moe_ffn, read_routing
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import quotient, sqrtf
from ggufphys.graph.ir import Graph, Tensor


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    x = b.inp_embd()
    rs = Recurrent(b)
    attention = mla.attention_k_or_none(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_k_mla)))
    n_rot = b.keys.integer("rope.dimension_count", b.h.n_embd_head_k)
    out_ids = b.inp_out_ids()
    stack: Tensor | None = None  # checkpoints of the stream (E, n, T)

    def unrotated(part: Tensor) -> Tensor:
        return part

    for il in b.layers():
        stream = x
        x = _look_back(b, stream, stack, b.weight("attn_res_score.weight", il)) if stack is not None else stream
        _, keeps = b.h.checkpoints[il]
        if keeps:
            kept = ops.reshape(stream, b.h.n_embd, 1, b.batch.n_tokens)
            stack = ops.concat(stack, kept, 1) if stack is not None else kept
        x = b.graph.expand(b.rms(x, "attn_norm", il))
        if b.recurrent(il) is not None:
            x = _delta_attention(b, rs, x, il)
        else:
            assert attention is not None
            q = mla.absorbed(b, mla.queries(b, x, il), n_rot, unrotated, il)
            latent, k_pe = mla.compressed(b, x, n_rot, unrotated, il)
            found = mla.attend(b, attention, q, latent, k_pe, il)
            gate = b.weight_or_none("attn_gate.weight", il)
            if gate is not None:
                found = ops.mul(found, ops.unary(ops.mul_mat(gate, x), "sigmoid"))
            x = ops.mul_mat(b.weight("attn_output.weight", il), found)
        stream = x if keeps else ops.add(stream, x)  # the stream begins anew behind a checkpoint
        x = _look_back(b, stream, stack, b.weight("ffn_res_score.weight", il)) if stack is not None else stream
        x = ops.add(stream, _ffn(b, b.rms(x, "ffn_norm", il), il))
    if stack is not None:
        x = _look_back(b, x, stack, b.weight("output_res_score.weight"))
    return b.head(b.rms(ops.get_rows(x, out_ids), "output_norm"))


def _look_back(b: Builder, x: Tensor, stack: Tensor, score: Tensor) -> Tensor:
    """A mixture of the stream (E, T) and its checkpoints; their scores come of what is in them."""
    n, n_tokens = stack.ne[1], x.ne[1]
    of_stack = ops.sum_rows(ops.mul(ops.rms_norm(stack, b.norm_rms_eps), score))
    of_x = ops.sum_rows(ops.mul(ops.rms_norm(x, b.norm_rms_eps), score))
    probs = ops.soft_max(ops.concat(ops.reshape(of_stack, n, n_tokens), of_x, 0))
    p_stack = ops.cont(ops.strided(probs, (n, n_tokens), (probs.nb[1],)))
    p_x = ops.cont(ops.strided(probs, (1, n_tokens), (probs.nb[1],), probs.nb[0] * n))
    return ops.add(hc_pre(stack, p_stack), ops.mul(x, p_x))


def _delta_attention(b: Builder, rs: Recurrent, x: Tensor, il: int) -> Tensor:
    q, k, v = (ops.mul_mat(b.weight(f"attn_{name}.weight", il), x) for name in "qkv")
    q, k, v = convolved_parts(rs, (q, k, v), il, range(len(all_slots(rs))))
    gate = decay_gate(b, x, il)
    beta = ops.mul_mat(b.weight("ssm_beta.weight", il), x)
    x = ops.reshape(ops.reshape(x, x.ne[0], rs.n_seq_tokens, rs.n_seqs), x.ne[0], b.batch.n_tokens)
    return kda(rs, q, k, v, gate, beta, ops.mul_mat(b.weight("ssm_g.weight", il), x), il)


def _ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    """Dense, or experts that work on fewer elements, and a shared one that does not."""
    keys = b.keys
    act = partial(_situ, beta=keys.real("activation.situ_beta"), linear=keys.real("activation.situ_linear_beta"))

    def dense(suffix: str) -> Tensor:
        gate, up = (ops.mul_mat(b.weight(f"ffn_{name}{suffix}.weight", il), x) for name in ("gate", "up"))
        return ops.mul_mat(b.weight(f"ffn_down{suffix}.weight", il), act(gate, up))

    if b.weight_or_none("ffn_gate_inp.weight", il) is None:
        return dense("")
    narrow, gain, wide = (b.weight_or_none(f"ffn_routed_{way}.weight", il) for way in ("down", "norm", "up"))
    latent = x if narrow is None else ops.mul_mat(narrow, x)
    logits = ops.mul_mat(b.weight("ffn_gate_inp.weight", il), x)
    out = moe_ffn(b, latent, il, read_routing(keys), Experts(act=act), logits=logits)
    out = out if gain is None else b.norm_rms(out, gain)
    out = out if wide is None else ops.mul_mat(wide, out)
    is_shared = b.weight_or_none("ffn_gate_shexp.weight", il) is not None
    return ops.add(out, dense("_shexp")) if is_shared else out


def _situ(gate: Tensor, up: Tensor, *, beta: float, linear: float) -> Tensor:
    """A gate that saturates: beta tanh(gate / beta) sigmoid(gate), times up, which saturates too."""
    act = ops.scale(ops.unary(ops.scale(gate, quotient(1, beta)), "tanh"), beta)
    act = ops.mul(act, ops.unary(gate, "sigmoid"))
    if linear > 0:
        up = ops.scale(ops.unary(ops.scale(up, 1 / linear), "tanh"), linear)
    return ops.mul(act, up)
