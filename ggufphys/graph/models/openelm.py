"""openelm: numbers of heads that differ by layer, normed.

Source: llama.cpp 0c1e570 src/models/openelm.cpp, llama_model_openelm::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        q, k, v = _qkv(b, b.rms(x, "attn_norm", il), il)
        q = b.rope(b.rms(q, "attn_q_norm", il), pos, None, rope)
        k = b.rope(b.rms(k, "attn_k_norm", il), pos, None, rope)
        x = attention[b.kv_cache(il)](q, k, v, il)
        residual, x = b.wanted(out_ids, il, residual, x)
        residual = ops.add(residual, x)
        x = ops.add(b.ffn_gated(b.rms(residual, "ffn_norm", il), il), residual)
    return b.head(b.rms(x, "output_norm"))


def _qkv(b: Builder, x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
    """All heads in one product, seen as three stretches of heads."""
    h, n_head, n_head_kv = b.h, b.h.n_head[il], b.h.n_head_kv[il]
    x = b.heads(b.linear("attn_qkv", il, x), h.n_embd_head_k, n_head + 2 * n_head_kv)
    q, k, v = (
        ops.view(x, (h.n_embd_head_k, n, b.batch.n_tokens), x.nb, x.nb[1] * start)
        for n, start in ((n_head, 0), (n_head_kv, n_head), (n_head_kv, n_head + n_head_kv))
    )
    return q, k, v
