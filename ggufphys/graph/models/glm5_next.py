"""glm5-next: hyper-connections, Kimi delta attention, latent attention to pools of positions in some layers, experts.

Source: llama.cpp 0c1e570 src/models/glm5-next.cpp, llama_model_glm5_next::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import head, hyper, mla
from ggufphys.graph.building.attention import AttentionK, Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.delta_net import convolved_parts, decay_gate, kda
from ggufphys.graph.building.dsa import indexer_cache
from ggufphys.graph.building.kpool import Pools
from ggufphys.graph.building.limited import limited_ffn
from ggufphys.graph.building.moe import Routing, read_routing
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor

L2_EPS = 1e-6


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    x = b.inp_embd()
    rs = Recurrent(b)
    attention, pools, routing = _shared(b)
    out_ids = b.inp_out_ids()
    streams = hyper.Streams(b)
    x = streams.begin(x)
    chosen: Tensor | None = None
    for il in b.layers():
        read, write = streams.read(x, "attn", il)
        read = b.graph.expand(b.rms(read, "attn_norm", il))
        if b.recurrent(il) is not None:
            x = write(_delta_attention(b, rs, read, il))
        else:
            row = mla.query_row(b, read, il)
            if chosen is None or indexer_cache(b, il) is not None:
                chosen = pools.choose(read, row, il)
                chosen = chosen if pools.gathers else pools.mask(chosen, attention.mask)
            x = write(_latent_attention(b, attention, pools, read, row, chosen, il))
        read, write = streams.read(x, "ffn", il)
        x = write(limited_ffn(b, b.rms(read, "ffn_norm", il), il, routing))
    return b.head(b.rms(hyper.mean(hyper.wanted(x, out_ids)), "output_norm"))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs): one stream.

    Source: llama.cpp b11549 src/models/glm5-next.cpp, graph_mtp.
    """
    il = b.h.n_layer
    rs = Recurrent(b)
    attention, pools, routing = _shared(b)
    b.graph.expand(rs.s_copy)
    out_ids = b.inp_out_ids()
    residual = head.begin(b)
    x = b.rms(residual, "attn_norm", il)
    row = mla.query_row(b, x, il)
    chosen = pools.mask(pools.choose(x, row, il), attention.mask)
    x = _latent_attention(b, attention, pools, x, row, chosen, il)
    residual = ops.add(ops.get_rows(x, out_ids), ops.get_rows(residual, out_ids))
    x = ops.add(limited_ffn(b, b.rms(residual, "ffn_norm", il), il, routing), residual)
    x = head.normed(b, x)
    x.is_output = True
    return head.end(b, x)


def _shared(b: Builder) -> tuple[AttentionK, Pools, Routing]:
    """What layers with attention have in common, and those with experts."""
    attention = mla.attention_k(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_k_mla)))
    routing = read_routing(b.keys, None if b.keys.integer("expert_gating_func", 0) else "sigmoid")
    return attention, Pools(b), routing


def _delta_attention(b: Builder, rs: Recurrent, x: Tensor, il: int) -> Tensor:
    q, k, v = (ops.mul_mat(b.weight(f"attn_{name}.weight", il), x) for name in "qkv")
    q, k, v = convolved_parts(rs, (q, k, v), il, range(1 + b.context.n_rs_seq))
    gate = decay_gate(b, x, il)
    beta = ops.mul_mat(b.weight("ssm_beta.weight", il), x)
    out_gate = ops.mul_mat(b.weight("ssm_g_b.weight", il), ops.mul_mat(b.weight("ssm_g_a.weight", il), x))
    return kda(rs, q, k, v, gate, beta, out_gate, il, l2_eps=L2_EPS)


def _latent_attention(
    b: Builder, attention: AttentionK, pools: Pools, x: Tensor, row: Tensor, chosen: Tensor, il: int
) -> Tensor:
    """Attention to the chosen cells, told by number or by mask; nothing rotates."""
    q = b.heads(ops.mul_mat(b.weight("attn_q_b.weight", il), row), b.h.n_embd_head_k_mla, b.h.n_head[il])
    q = ops.mul_mat(b.weight("attn_k_b.weight", il), ops.permute(q, 0, 2, 1, 3))
    q = ops.permute(q, 0, 2, 1, 3)
    latent = b.rms(ops.mul_mat(b.weight("attn_kv_a_mqa.weight", il), x), "attn_kv_a_norm", il)
    k = ops.reshape(latent, b.h.n_lora_kv, 1, b.batch.n_tokens)
    v_mla = b.weight("attn_v_b.weight", il)
    if pools.gathers:
        out = _attend_gathered(b, attention, pools, q, k, v_mla, chosen, il)
    else:
        mask = chosen if "choice_as_mask" in b.context.rules else ops.reshape(chosen, *attention.mask.ne)
        out = attention.mix_latent(q, k, k.ne[0], il, v_mla=v_mla, mask=mask)
    return ops.mul_mat(b.weight("attn_output.weight", il), out)


def _attend_gathered(
    b: Builder, attention: AttentionK, pools: Pools, q: Tensor, k: Tensor, v_mla: Tensor, chosen: Tensor, il: int
) -> Tensor:
    """Attention to copies of the chosen rows, other ones for each token: (D*H, T)."""
    n, n_tokens = chosen.ne[:2]
    cache = attention.store_latent(q, k, il)
    b.graph.expand(attention.mask)
    rows = ops.strided(cache, (cache.ne[0], cache.ne[1] * cache.ne[2]), (cache.nb[1],))
    rows = ops.reshape(ops.get_rows(rows, ops.reshape(chosen, n * n_tokens)), cache.ne[0], n, 1, n_tokens)
    x = ops.mul_mat(rows, ops.permute(q, 0, 2, 3, 1))
    x = ops.soft_max(x, pools.chosen_mask, attention.scores.factor)
    x = ops.mul_mat(v_mla, ops.mul_mat(ops.cont(ops.transpose(rows)), x))
    x = ops.cont(ops.permute(x, 0, 2, 1, 3))
    return ops.reshape(x, x.ne[0] * x.ne[1], n_tokens)
