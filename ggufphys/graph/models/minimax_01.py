"""minimax-01: lightning attention, whose memory of each head fades at its own rate, softmax attention in some layers.

Legend: D head size, H n_head, T tokens of a sequence, N n_seqs.
Source: llama.cpp 0c1e570 src/models/minimax-01.cpp, llama_model_minimax_01::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import moe_ffn, read_routing
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F32
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    routing = read_routing(b.keys, "softmax", norm_weights=True, weights_scale=0.0)
    residual_scale = b.keys.real("residual_scale")
    x = b.inp_embd()
    rs = Recurrent(b)
    attention = attentions(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_v)))
    pos = b.inp_pos()
    out_ids = b.inp_out_ids()
    lightning = Lightning(b, rs)
    for il in b.layers():
        x = residual = b.rms(x, "attn_norm", il)  # the normed stream goes on, not what came in
        if b.recurrent(il) is not None:
            x = lightning.attend(x, il)
        else:
            q, k, v = b.qkv(x, il)
            q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
            x = attention[b.kv_cache(il)](q, k, v, il, biased=False)
        x, residual = b.wanted(out_ids, il, x, residual)
        x = ops.add(x, ops.scale(residual, residual_scale))
        x = residual = b.rms(x, "ffn_norm", il)
        x = ops.add(moe_ffn(b, x, il, routing), ops.scale(residual, residual_scale))
    return b.head(b.rms(x, "output_norm"))


class Lightning:
    """Linear attention in blocks of a batch. Its inputs say how much of what is left after how many tokens."""

    def __init__(self, b: Builder, rs: Recurrent) -> None:
        self.b, self.rs = b, rs
        n_head, n_tokens, n_seqs = b.h.n_head[0], rs.n_seq_tokens, rs.n_seqs
        n = b.h.n_layer
        self.by_layer = [1 - i / max(n - 1, 1) + 1e-5 for i in range(n)]  # later layers forget more slowly
        self.slopes = ops.new_input(F32, n_head, name="la_slopes")
        self.q_decay = ops.new_input(F32, 1, n_head, n_tokens, n_seqs, name="la_q_decay")
        self.k_decay = ops.new_input(F32, 1, n_head, n_tokens, n_seqs, name="la_k_decay")
        self.diag_decay = ops.new_input(F32, n_tokens, n_tokens, n_head, n_seqs, name="la_diag_decay")

    def attend(self, x: Tensor, il: int) -> Tensor:
        """(E, T*N) to (E, T*N)."""
        b, rs = self.b, self.rs
        d, n_head, n_tokens, n_seqs = b.h.n_embd_head_v, b.h.n_head[il], rs.n_seq_tokens, rs.n_seqs
        slope = self.by_layer[il]
        rs.read(rs.rows("r", il))  # there is none, and still it is read
        x = ops.reshape(x, x.ne[0], n_tokens, 1, n_seqs)
        qkv = ops.unary(b.mul_mat(b.weight("attn_qkv.weight", il), x), "silu")
        qkv = ops.reshape(qkv, 3 * d, n_head, n_tokens, n_seqs)
        q, k, v = (ops.strided(qkv, (d, n_head, n_tokens, n_seqs), qkv.nb[1:], i * d * qkv.nb[0]) for i in range(3))
        rows = rs.rows("s", il)
        old = ops.reshape(rs.read(rows), d, d, n_head, n_seqs)

        q_decay, k_decay, diag_decay = (
            ops.unary(ops.scale(decay, slope), "exp") for decay in (self.q_decay, self.k_decay, self.diag_decay)
        )
        of_before = ops.mul_mat(old, ops.permute(ops.mul(q, q_decay), 0, 2, 1, 3))
        scores = ops.mul_mat(ops.permute(k, 0, 2, 1, 3), ops.permute(q, 0, 2, 1, 3))
        v = ops.cont(ops.permute(v, 1, 2, 0, 3))
        of_batch = ops.mul_mat(v, ops.mul(scores, diag_decay))
        found = b.graph.expand(ops.add(of_before, of_batch))  # (D, T, H, N)

        block_decay = ops.unary(ops.scale(ops.scale(self.slopes, slope), -float(n_tokens)), "exp")
        faded = ops.mul(old, ops.reshape(block_decay, 1, 1, n_head))
        k = ops.cont(ops.permute(ops.mul(k, k_decay), 1, 2, 0, 3))
        new = ops.add(faded, ops.mul_mat(k, v))
        b.graph.expand(ops.cpy(new, ops.view(rows, (rows.ne[0] * n_seqs,), offset=rs.offset(rows))))

        found = ops.cont(ops.permute(found, 0, 2, 1, 3))
        found = b.rms(ops.reshape(found, d * n_head, n_tokens, 1, n_seqs), "attn_norm_2", il)
        gate = ops.unary(b.mul_mat(b.weight("attn_gate.weight", il), x), "sigmoid")
        x = b.mul_mat(b.weight("attn_output.weight", il), ops.mul(gate, found))
        return ops.reshape(x, x.ne[0], n_tokens * n_seqs)
