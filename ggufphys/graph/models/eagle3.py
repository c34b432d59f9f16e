"""eagle3: a draft model of one layer, which reads each token beside what the target's layers made of the text.

It may have a smaller vocabulary than its target: logits are then spread over that, and tokens it lacks get none.

Legend: V the target's vocabulary. Source: llama.cpp 0c1e570 src/models/eagle3.cpp,
llama_model_eagle3::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.drafts import spread
from ggufphys.graph.ir import Graph
from ggufphys.graph.ops import F32, I32
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The decoder, from token ids and fused features (E, T) to logits (V, T)."""
    h, n_tokens = b.h, b.batch.n_tokens
    rope = read_rope(b.keys, h, "norm")
    tokens = ops.new_input(I32, n_tokens, name="tokens")
    x = ops.new_input(F32, h.n_embd, n_tokens, name="embd")
    embedded = ops.get_rows(b.weight("token_embd.weight"), tokens)
    pos = b.inp_pos()
    attention = attentions(b)
    for il in b.layers():
        embedded = b.norm_rms(embedded, b.weight("attn_norm.weight", il))
        normed = b.norm_rms(x, b.weight("attn_norm_2.weight", il))
        residual = normed if b.keys.flag("norm_before_residual", False) else x
        q, k, v = b.qkv(ops.concat(embedded, normed, 0), il, biased=False)
        factors = b.rope_factors(il)
        q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        x = attention[b.kv_cache(il)](q, k, v, il, biased=False)
        residual = ops.add(x, residual)
        x = b.ffn_gated(b.norm_rms(residual, b.weight("ffn_norm.weight", il)), il, biased=False)
        x = ops.add(x, residual)
    x.is_output = True  # what the next token's features are, when the draft goes on by itself
    logits = b.mul_mat(b.weight("output.weight"), b.norm_rms(x, b.weight("output_norm.weight")))
    return b.embeddings(spread(b, logits))
