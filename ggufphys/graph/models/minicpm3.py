"""minicpm3: queries, keys and values decompressed from narrow rows, part of each head rotated; factors on everything.

Source: llama.cpp 0c1e570 src/models/minicpm3.cpp, llama_model_minicpm3::graph.
"""

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import Rope, read_rope

EMBEDDING_SCALE, DEPTH_SCALE, BASE_WIDTH = 12.0, 1.4, 256


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    rope = read_rope(b.keys, h, "neox")
    residual_scale = DEPTH_SCALE / sqrtf(h.n_layer)
    x = ops.scale(b.inp_embd(), EMBEDDING_SCALE)
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=1 / sqrtf(h.n_embd_head_k)))
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = _qkv(b, b.rms(x, "attn_norm", il), pos, rope, il)
        x = attention[b.kv_cache(il)](q, k, v, il, biased=False)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(ops.scale(x, residual_scale), residual)
        x = b.ffn_gated(b.rms(residual, "ffn_norm", il), il)
        x = ops.add(ops.scale(x, residual_scale), residual)
    return b.head(b.rms(x, "output_norm"), scale_before=BASE_WIDTH / h.n_embd)


def _qkv(b: Builder, x: Tensor, pos: Tensor, rope: Rope, il: int) -> tuple[Tensor, Tensor, Tensor]:
    """All of (D, H, T): the last elements of each head's query and key are rotated, and of the key common to all."""
    h, n_head, n_tokens, n_rot = b.h, b.h.n_head[il], b.batch.n_tokens, rope.n_dims
    n_nope, n_embd_head_v, factors = h.n_embd_head_k - n_rot, h.n_embd_head_v, b.rope_factors(il)
    q = b.linear("attn_q_b", il, b.rms(b.linear("attn_q_a", il, x), "attn_q_a_norm", il))
    q = b.rope(b.heads(q, h.n_embd_head_k, n_head), pos, factors, replace(rope, offset=n_nope))
    both = b.linear("attn_kv_a_mqa", il, x)
    latent = ops.strided(both, (h.n_lora_kv, n_tokens), (both.nb[1],))
    k_pe = ops.strided(both, (n_rot, 1, n_tokens), (both.nb[1], both.nb[1]), h.n_lora_kv * both.nb[0])
    kv = b.linear("attn_kv_b", il, b.rms(latent, "attn_kv_a_norm", il))
    head = (n_nope + n_embd_head_v) * kv.nb[0]
    k_nope = ops.strided(kv, (n_nope, n_head, n_tokens), (head, head * n_head))
    v = ops.strided(kv, (n_embd_head_v, n_head, n_tokens), (head, head * n_head), n_nope * kv.nb[0])
    k_pe = ops.repeat(b.rope(k_pe, pos, factors, rope), n_rot, n_head, n_tokens)
    return q, ops.concat(k_nope, k_pe, 0), ops.cont(v)
