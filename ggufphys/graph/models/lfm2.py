"""lfm2 and lfm2moe: short gated convolutions, attention in some layers.

Source: llama.cpp 0c1e570 src/models/lfm2.cpp, llama_model_lfm2::graph.
"""

from ggufphys.arch.caches import WindowKV
from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope
from ggufphys.graph.ssm_ops import ssm_conv


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    ffn = dense_or_experts(b, read_routing(b.keys, norm_weights=True, weights_scale=0.0))
    x = b.inp_embd()
    attention = attentions(b)
    for cache, kind in attention.items():
        if isinstance(cache, WindowKV):  # llama.cpp does not rotate windows that stand beside recurrent states
            kind.k_rot = kind.v_rot = None
    rs = Recurrent(b)
    pos = b.inp_pos()
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = b.rms(x, "attn_norm", il)
        if b.recurrent(il) is not None:
            x = _short_conv(b, rs, x, il)
        else:
            q, k, v = b.qkv(x, il)
            q = b.rms(q, "attn_q_norm", il)
            k = b.rms(k, "attn_k_norm", il)
            q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
            x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(residual, x)
        x = ffn(b.rms(residual, "ffn_norm", il), il)
        x = ops.add(residual, x)
    x = b.rms(x, "token_embd_norm")
    return b.hidden(x) if b.context.embeddings and "lfm2_embeds_alone" in b.context.rules else b.head(x)


def _short_conv(b: Builder, rs: Recurrent, x: Tensor, il: int) -> Tensor:
    """One product gives two gates and what is convolved between them: (E, T*N) to (E, T*N)."""
    n_embd, n_tokens, n_seqs = b.h.n_embd, rs.n_seq_tokens, rs.n_seqs
    all_three = b.linear("shortconv.in_proj", il, ops.reshape(x, n_embd, n_tokens, n_seqs))
    gate_in, gate_out, x = (
        ops.strided(all_three, (n_embd, n_tokens, n_seqs), all_three.nb[1:3], i * n_embd * all_three.nb[0])
        for i in range(3)
    )
    causal = b.h.causal_attn or "lfm2_always_causal" in b.context.rules
    x = rs.conv_input(ops.mul(gate_in, x), il, None if causal else (0,), centred=not causal)
    x = ops.mul(gate_out, ssm_conv(x, b.weight("shortconv.conv.weight", il)))
    x = b.linear("shortconv.out_proj", il, x)
    return ops.reshape(x, n_embd, n_tokens * n_seqs)
