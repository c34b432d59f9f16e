"""gemma4-assistant: a draft model that keeps nothing; its layers ask the caches of its target's last two.

It reads each token by its target's embeddings, beside the target's hidden state, and gives the next hidden state too.

Legend: W the target's n_embd. Source: llama.cpp 0c1e570 src/models/gemma4-assistant.cpp,
llama_model_gemma4_assistant::graph.
"""

from ggufphys.arch.borrowed import TARGET_EMBEDDING
from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.ops import F32, I32
from ggufphys.graph.rope import read_rope, read_rope_swa


def build(b: Builder) -> Graph:
    """From token ids and hidden states (W, T) to logits (n_vocab, n_outputs) and hidden states (W, n_outputs)."""
    h, n_tokens, width = b.h, b.batch.n_tokens, b.keys.integer("embedding_length_out")
    full = read_rope(b.keys, h, "neox")
    rope_swa = read_rope_swa(b.keys, full, own_dims=True)
    tokens = ops.new_input(I32, n_tokens, name="tokens")
    hidden = ops.new_input(F32, width, n_tokens, name="embd")
    embedded = ops.scale(ops.get_rows(b.weight(TARGET_EMBEDDING), tokens), sqrtf(width))
    x = ops.mul_mat(b.weight("nextn.pre_projection.weight"), ops.concat(embedded, hidden, 0))
    attention = attentions(b, Scores(factor=1.0))
    pos, out_ids = b.inp_pos(), b.inp_out_ids()
    for il in b.layers():
        residual, cache = x, b.kv_cache(il)
        rope, factors = (rope_swa, None) if b.has_window(il) else (full, b.weight_or_none("rope_freqs.weight"))
        q = b.linear("attn_q", il, b.norm_rms(x, b.weight("attn_norm.weight", il)), biased=False)
        q = b.norm_rms(b.heads(q, b.n_embd_head(cache)[0], h.n_head[il]), b.weight("attn_q_norm.weight", il))
        x = attention[cache](b.rope(q, pos, factors, rope), None, None, il, biased=False)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(b.norm_rms(x, b.weight("post_attention_norm.weight", il)), residual)
        x = b.ffn_gated(b.norm_rms(residual, b.weight("ffn_norm.weight", il)), il, "geglu", biased=False)
        x = ops.add(b.norm_rms(x, b.weight("post_ffw_norm.weight", il)), residual)
        x = ops.mul(x, b.weight("layer_output_scale.weight", il))
    x = b.norm_rms(x, b.weight("output_norm.weight"))
    b.embeddings(b.mul_mat(b.weight("token_embd.weight"), x))
    return b.embeddings(ops.mul_mat(b.weight("nextn.post_projection.weight"), x))
