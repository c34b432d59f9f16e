"""bert and its kin: encoders with norms behind each part, not in front.

Source: llama.cpp 0c1e570 src/models/bert.cpp, llama_model_bert::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.attention_alone import AttentionAlone
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import Ffn
from ggufphys.graph.building.moe import Experts, Routing, moe_ffn
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import Rope, read_rope


def build(b: Builder) -> Graph:
    """bert: learned positions, a plain GELU."""
    positions = ops.get_rows(b.weight("position_embd.weight"), b.inp_pos())
    if "bert_positions_first" in b.context.rules:
        b.graph.expand(positions)
    x = ops.add(positions, _with_types(b, b.inp_embd()))
    return encoder(b, x, lambda x, il: b.ffn_plain(x, il, "gelu"))


def build_biased(b: Builder) -> Graph:
    """jina-bert-v2: a bias for distances, feed-forward layers gated by a GELU."""
    scores = Scores(factor=1 / sqrtf(b.h.n_embd_head_v), max_bias=b.keys.real("attention.max_alibi_bias", 8.0))

    def ffn(x: Tensor, il: int) -> Tensor:
        if b.weight_or_none("ffn_gate.weight", il) is not None:
            return b.ffn_gated(x, il, "geglu")
        has_both = b.weight("ffn_up.weight", il).ne[1] != b.h.n_ff[il]
        return b.ffn_halves(x, il, "geglu") if has_both else b.ffn_plain(x, il, "gelu")

    return encoder(b, _with_types(b, b.inp_embd()), ffn, scores=scores)


def build_rotated(b: Builder) -> Graph:
    """jina-bert-v3, nomic-bert, nomic-bert-moe: rotary positions; feed-forward layers are gated, plain or experts."""

    def ffn(x: Tensor, il: int) -> Tensor:
        if b.weight_or_none("ffn_gate_inp.weight", il) is not None:
            return moe_ffn(b, x, il, Routing(), Experts(plain="gelu"))
        if b.weight_or_none("ffn_gate.weight", il) is not None:
            return b.ffn_gated(x, il, biased=False)
        return b.ffn_plain(x, il, "gelu")

    pos = b.inp_pos()
    return encoder(b, _with_types(b, b.inp_embd()), ffn, read_rope(b.keys, b.h, "neox"), pos)


def encoder(
    b: Builder, x: Tensor, ffn: Ffn, rope: Rope | None = None, pos: Tensor | None = None, scores: Scores | None = None
) -> Graph:
    """All layers, from summed embeddings (E, T) to hidden states (E, n_outputs)."""
    h, n_tokens = b.h, b.batch.n_tokens
    x = b.layer_norm(x, "token_embd_norm")
    attention = AttentionAlone(b, scores)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(x, il)
        if b.weight_or_none("attn_q_norm.weight", il) is not None:
            q = b.layer_norm(ops.reshape(q, q.ne[0] * q.ne[1], n_tokens), "attn_q_norm", il)
            q = b.heads(q, h.n_embd_head_k, h.n_head[il])
        if b.weight_or_none("attn_k_norm.weight", il) is not None:
            k = b.layer_norm(ops.reshape(k, k.ne[0] * k.ne[1], n_tokens), "attn_k_norm", il)
            k = b.heads(k, h.n_embd_head_k, h.n_head_kv[il])
        if rope is not None and pos is not None:
            q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        x = attention(q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        x = b.layer_norm(ops.add(x, residual), "attn_output_norm", il)
        if b.weight_or_none("attn_norm_2.weight", il) is not None:
            x = b.layer_norm(ops.add(x, residual), "attn_norm_2", il)
        x = ops.add(ffn(x, il), x)
        x = b.layer_norm(x, "layer_output_norm", il)
    return b.hidden(x)


def _with_types(b: Builder, x: Tensor) -> Tensor:
    """Plus the embedding of the first type of token."""
    types = b.weight_or_none("token_types.weight")
    return x if types is None else ops.add(x, ops.view(types, (b.h.n_embd,)))
