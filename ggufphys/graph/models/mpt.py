"""mpt: learned positions or a bias that grows with the distance, clamped queries, keys and values, layer norms.

Source: llama.cpp 0c1e570 src/models/mpt.cpp, llama_model_mpt::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h, n_tokens = b.h, b.batch.n_tokens
    clamp = b.keys.real("attention.clamp_kqv", 0.0)
    x = b.inp_embd()
    positions = b.weight_or_none("position_embd.weight")
    if positions is not None:
        x = ops.add(x, ops.get_rows(positions, b.inp_pos()))

    def qkv(x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = b.qkv(x, il, clamp=clamp)
        if b.weight_or_none("attn_q_norm.weight", il) is not None:  # of whole rows
            q, k = (ops.reshape(part, part.ne[0] * part.ne[1], n_tokens) for part in (q, k))
            q = b.heads(b.layer_norm(q, "attn_q_norm", il), h.n_embd_head_k, h.n_head[il])
            k = b.heads(b.layer_norm(k, "attn_k_norm", il), h.n_embd_head_k, h.n_head_kv[il])
        return q, k, v

    def ffn(x: Tensor, il: int) -> Tensor:
        x = ops.unary(b.linear("ffn_up", il, x), "gelu")
        scales = b.weight_or_none("ffn.act.scales", il)
        return b.linear("ffn_down", il, x if scales is None else ops.div(x, scales))

    scores = Scores(factor=1 / sqrtf(h.n_embd_head_v), max_bias=b.keys.real("attention.max_alibi_bias", 0.0))
    return b.head(decoder(b, x, qkv, ffn, norm=b.layer_norm, scores=scores))
