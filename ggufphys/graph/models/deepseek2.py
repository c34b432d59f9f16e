"""deepseek2: latent attention, and experts in groups beside a shared one. Older files keep the cache uncompressed.

Source: llama.cpp 0c1e570 src/models/deepseek2.cpp, llama_model_deepseek2::graph.
"""

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building import head, mla
from ggufphys.graph.building.attention import AttentionK, AttentionKV, Scores
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.moe import Routing, read_routing
from ggufphys.graph.floats import logarithm, quotient, sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import Rope, read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    return build_with(b, read_own_routing(b))


def build_with(b: Builder, routing: Routing) -> Graph:
    """The whole graph of an architecture whose experts are chosen and computed as `routing` says."""
    h = b.h
    n_embd_head = h.n_embd_head_k_mla or h.n_embd_head_k
    log_mul = b.keys.real("rope.scaling.yarn_log_multiplier", 0.0) / 0.1
    rope, scores = rope_and_scores(b, n_embd_head, log_mul, mscale=log_mul or 1.0)
    ffn = dense_or_experts(b, routing)
    x = b.inp_embd()
    temperature = _temperature(b)
    pos = b.inp_pos()
    attention = (AttentionK if h.is_mla else AttentionKV)(b, b.kv_cache(0), scores)

    def rotate(part: Tensor) -> Tensor:
        return b.rope(part, pos, None, rope)

    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = b.rms(x, "attn_norm", il)
        q = b.heads(mla.queries(b, x, il), n_embd_head, h.n_head[il])
        latent, k_pe = mla.compressed(b, x, rope.n_dims, rotate, il)
        if isinstance(attention, AttentionK):
            q = mla.absorbed(b, q, rope.n_dims, rotate, il)
            q = ops.mul(q, temperature) if temperature is not None else q
            x = mla.attend(b, attention, q, latent, k_pe, il)
        else:
            q = b.rope(q, pos, None, replace(rope, offset=n_embd_head - rope.n_dims))
            q = ops.mul(q, temperature) if temperature is not None else q
            x = attention.mix(q, *_decompressed(b, latent, k_pe, n_embd_head, il), il)
        x = b.linear("attn_output", il, x)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ffn(b.rms(residual, "ffn_norm", il), il)
        x = ops.add(x, residual)
    return b.head(b.rms(x, "output_norm"))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden states to logits (n_vocab, n_outputs)."""
    log_mul = b.keys.real("rope.scaling.yarn_log_multiplier", 0.0) / 0.1
    rope, scores = rope_and_scores(b, b.h.n_embd_head_k_mla, log_mul, mscale=log_mul or 1.0)
    return build_head_with(b, rope, scores, read_own_routing(b))


def build_head_with(b: Builder, rope: Rope, scores: Scores, routing: Routing) -> Graph:
    """The head's graph of an architecture whose head has the trunk's attention, without an indexer, and its experts."""
    il, pos, out_ids = b.h.n_layer, b.inp_pos(), b.inp_out_ids()
    attention = mla.attention_k(b, scores)

    def rotate(part: Tensor) -> Tensor:
        return b.rope(part, pos, None, rope)

    residual = head.begin(b)
    x = b.norm_rms(residual, b.weight("attn_norm.weight", il))
    q = mla.absorbed(b, mla.queries(b, x, il), rope.n_dims, rotate, il)
    x = mla.attend(b, attention, q, *mla.compressed(b, x, rope.n_dims, rotate, il), il)
    residual = ops.add(b.linear("attn_output", il, x, biased=False), residual)
    x = dense_or_experts(b, routing)(b.norm_rms(residual, b.weight("ffn_norm.weight", il)), il)
    return head.end_all(b, ops.add(x, residual), out_ids)


def rope_and_scores(b: Builder, n_embd_head: int, log_mul: float, *, mscale: float = 1.0) -> tuple[Rope, Scores]:
    """Rotary settings, and scores scaled for YaRN: its factor on Q and K counts for what does not rotate as well."""
    rope = read_rope(b.keys, b.h, "norm", log_mul=log_mul, mscale=mscale)
    longer = logarithm(quotient(1, rope.freq_scale))
    by_yarn = rope.attn_factor * (1 + 0.1 * longer) * (1 + 0.1 * log_mul * longer)
    return rope, Scores(factor=by_yarn * by_yarn / sqrtf(n_embd_head))


def _temperature(b: Builder) -> Tensor | None:
    """A factor on each query that grows with its position where the file asks for it."""
    scale = b.keys.real("attention.temperature_scale", 0.0)
    if not scale:
        return None
    return b.inp_attn_scale(b.keys.integer("attention.temperature_length", 0), scale)


def _decompressed(b: Builder, latent: Tensor, k_pe: Tensor, n_embd_head: int, il: int) -> tuple[Tensor, Tensor]:
    """K (N + P, H, T) and V (D, H, T) of all heads, from the row that they share."""
    n_rot, n_head, n_tokens = k_pe.ne[0], b.h.n_head[il], b.batch.n_tokens
    n_nope, n_embd_head_v = n_embd_head - n_rot, b.h.n_embd_head_v_mla or b.h.n_embd_head_v
    kv = ops.mul_mat(b.weight("attn_kv_b.weight", il), latent)
    head = (n_nope + n_embd_head_v) * kv.nb[0]
    k_nope = ops.strided(kv, (n_nope, n_head, n_tokens), (head, head * n_head))
    v = ops.strided(kv, (n_embd_head_v, n_head, n_tokens), (head, head * n_head), n_nope * kv.nb[0])
    return ops.concat(k_nope, ops.repeat(k_pe, n_rot, n_head, n_tokens), 0), ops.cont(v)


def read_own_routing(b: Builder) -> Routing:
    """The routing that the file asks for."""
    if b.keys.integer("expert_gating_func", 0):
        return read_routing(b.keys)
    return read_routing(b.keys, "sigmoid" if _is_glm_lite(b) else "softmax")


def _is_glm_lite(b: Builder) -> bool:
    """GLM 4.7 Lite, whose files do not name their gating function."""
    return b.h.n_layer in (47, 48) and b.h.n_vocab == 154880
