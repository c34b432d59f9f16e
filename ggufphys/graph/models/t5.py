"""t5: a decoder that also attends to what an encoder made of another text; distances bias the scores, by buckets.

llama.cpp reserves for the decoder alone, as if the encoder had read as many tokens as in training.

Legend: B buckets, C cells or tokens that are attended to. Source: llama.cpp 0c1e570 src/models/t5.cpp,
llama_model_t5::graph; src/llama-graph.cpp, build_pos_bias, build_attn_inp_cross, build_inp_cross_embd.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attend, attentions
from ggufphys.graph.building.attention_alone import AttentionAlone
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F32, I32

PLAIN = Scores(factor=1.0)


def build(b: Builder) -> Graph:
    """The decoder, from token ids to logits (n_vocab, n_outputs)."""
    b.stack = "dec.blk"
    x = b.inp_embd()
    encoded = ops.new_input(F32, b.h.n_embd, _n_enc(b), name="cross_embd")
    cache = b.kv_cache(0)
    attention = attentions(b, PLAIN)[cache]
    buckets = ops.new_input(I32, attention.n_kv, b.batch.n_tokens, name="pos_bucket_dec", params=(cache,))
    cross_mask = b.mask(_n_enc(b), b.batch.n_tokens, name="cross_kq_mask")
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        x = attention.mix(q, k, v, il, bias=position_bias(b, buckets, il))
        residual = ops.add(b.linear("attn_o", il, x), residual)
        x = _cross_attention(b, b.rms(residual, "cross_attn_norm", il), encoded, cross_mask, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(_ffn(b, b.rms(residual, "ffn_norm", il), il), residual)
    return b.head(b.rms(x, "dec.output_norm"))


def build_encoder(b: Builder) -> Graph:
    """The encoder, from token ids to hidden states (E, n_outputs)."""
    b.stack = "enc.blk"
    n_tokens = b.batch.n_tokens
    x = b.inp_embd()
    buckets = ops.new_input(I32, n_tokens, n_tokens, name="pos_bucket")
    attention = AttentionAlone(b, PLAIN)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        x = attention.mix(q, k, v, il, bias=position_bias(b, buckets, il))
        x, residual = b.wanted(out_ids, il, b.linear("attn_o", il, x), residual)
        residual = ops.add(x, residual)
        x = ops.add(_ffn(b, b.rms(residual, "ffn_norm", il), il), residual)
    return b.hidden(b.rms(x, "enc.output_norm"))


def position_bias(b: Builder, buckets: Tensor, il: int) -> Tensor:
    """A number for each head and pair of positions (C, T, H), by the bucket (C, T) that their distance falls into.

    Layers without a table (H, B) of their own use the first one's.
    """
    table = b.weight_or_none("attn_rel_b.weight", il) or b.weight("attn_rel_b.weight", 0)
    n_kv, n_tokens = buckets.ne[:2]
    rows = ops.get_rows(table, ops.reshape(buckets, n_kv * n_tokens))
    return ops.cont(ops.permute(ops.reshape(rows, rows.ne[0], n_kv, n_tokens), 2, 0, 1, 3))


def _n_enc(b: Builder) -> int:
    return b.h.n_ctx_train if b.batch.n_enc is None else b.batch.n_enc


def _cross_attention(b: Builder, x: Tensor, encoded: Tensor, mask: Tensor, il: int) -> Tensor:
    """Queries of the batch (E, T) ask what was encoded (E, C), whose keys and values are computed each time: (E, T)."""
    h, n_enc = b.h, encoded.ne[1]
    q = b.heads(b.linear("cross_attn_q", il, x), h.n_embd_head_k, h.n_head[il])
    k = ops.reshape(b.linear("cross_attn_k", il, encoded), h.n_embd_head_k, h.n_head_kv[il], n_enc)
    v = ops.reshape(b.linear("cross_attn_v", il, encoded), h.n_embd_head_v, h.n_head_kv[il], n_enc)
    for tensor in (q, k, v):
        b.graph.expand(tensor)
    return b.linear("cross_attn_o", il, attend(b, q, k, v, mask, PLAIN))


def _ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    """Gated in later models of the family."""
    if b.weight_or_none("ffn_gate.weight", il) is not None:
        return b.ffn_gated(x, il, "geglu")
    return b.ffn_plain(x, il, "relu")
