"""dflash: a draft model that fills in a block of tokens at once, beside what it keeps of its target's layers.

Tokens of a block see each other. Where the file has the weights for it, short convolutions within the block stand
around attention and feed-forward layers, and heads behind the logits choose among pairs of tokens.

llama.cpp reserves for batches of tokens; those of the target's features, which fill the cache, are smaller graphs.

Legend: E n_embd, T tokens, N blocks, L tokens of a block, W taps of a convolution, G groups of neighbours that share
its weights. Source: llama.cpp 0c1e570 src/models/dflash.cpp, llama_model_dflash::graph, build_dflash2_conv.
"""

from typing import Literal

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.drafts import biased_by_pairs, candidates, spread
from ggufphys.graph.building.hyper import Streams
from ggufphys.graph.building.limited import limited_ffn
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models.deepseek4 import WindowAndBlocks
from ggufphys.graph.ops import I32, Glu
from ggufphys.graph.rope import Rope, read_rope


def build(b: Builder) -> Graph:
    """The decoder, from token ids to logits (n_vocab, T)."""
    if b.h.hc_mult:
        return _build_of_streams(b)
    keys = b.keys
    rope = _rope(b)
    factors = None if rope.sections else b.weight_or_none("rope_freqs.weight")
    ffn: Glu = "geglu" if keys.text("hidden_activation", "silu").startswith("gelu") else "swiglu"
    value_scale = keys.real("attention.value_scale", 0.0)
    pos = b.inp_pos(rope.n_pos_per_embd)
    attention = attentions(b, Scores(factor=keys.real("attention.scale", 0.0) or 1 / sqrtf(b.h.n_embd_head_v)))
    tokens = ops.new_input(I32, b.batch.n_tokens, name="tokens")
    x = ops.get_rows(b.weight("token_embd.weight"), tokens)
    embedding_scale = keys.real("embedding_scale", 0.0)
    x = ops.scale(x, embedding_scale) if embedding_scale else x
    for il in b.layers():
        residual = x
        conv = _Convolution(b, b.norm_rms(x, b.weight("attn_norm.weight", il)), "attn", il)
        q, k, v = _qkv(b, conv.before, il)
        q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        sinks = b.weight_or_none("attn_sinks.weight", il)
        x = attention[b.kv_cache(il)](q, k, v, il, sinks=sinks, biased=False)
        x = conv.behind(ops.scale(x, value_scale) if value_scale else x)
        residual = ops.add(b.rms_if_gained(x, "post_attention_norm", il), residual)
        conv = _Convolution(b, b.norm_rms(residual, b.weight("ffn_norm.weight", il)), "ffn", il)
        x = conv.behind(b.ffn_gated(conv.before, il, ffn, biased=False))
        x = ops.add(b.rms_if_gained(x, "post_ffw_norm", il), residual)
        out_scale = b.weight_or_none("layer_output_scale.weight", il)
        x = x if out_scale is None else ops.mul(x, out_scale)
    x = b.norm_rms(x, b.weight("output_norm.weight"))
    return _head(b, x, tokens)


def _build_of_streams(b: Builder) -> Graph:
    """The decoder, made of deepseek4's layers: hyper-connections, windows in all layers, experts."""
    pos = b.inp_pos(_rope(b).n_pos_per_embd)
    attention, streams, routing = WindowAndBlocks(b, pos, windows_only=True), Streams(b), read_routing(b.keys)
    tokens = ops.new_input(I32, b.batch.n_tokens, name="tokens")
    x = streams.begin(ops.get_rows(b.weight("token_embd.weight"), tokens))
    for il in b.layers():
        read, write = streams.read(x, "attn", il)
        x = write(attention(b.rms(read, "attn_norm", il), il))
        read, write = streams.read(x, "ffn", il)
        x = write(limited_ffn(b, b.rms(read, "ffn_norm", il), il, routing))
    hidden = streams.head(x)
    hidden.is_output = True
    matrix = b.weight_or_none("output.weight") or b.weight("token_embd.weight")
    logits = b.graph.expand(b.mul_mat(matrix, b.rms(hidden, "output_norm"), b.scale_of("output", None)))
    return _finished(b, logits, hidden, tokens)


def _rope(b: Builder) -> Rope:
    """Pairs half a rotation apart; by several positions where the target's tokens have them."""
    numbers = b.keys.numbers("rope.dimension_sections")
    sections = numbers if isinstance(numbers, tuple) and any(numbers) else ()
    return read_rope(b.keys, b.h, "mrope" if sections else "neox", sections=sections)


def _qkv(b: Builder, x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q (D, H, T), K and V (D, K, T), normed by heads; without a matrix of its own V is K before its gain."""
    d, n_head, n_head_kv = b.h.n_embd_head_v, b.h.n_head[il], b.h.n_head_kv[il]
    q, k = b.linear("attn_q", il, x, biased=False), b.linear("attn_k", il, x, biased=False)
    shared = b.weight_or_none("attn_v.weight", il) is None
    v = b.heads(k if shared else b.linear("attn_v", il, x, biased=False), d, n_head_kv)
    q = b.norm_rms(b.heads(q, d, n_head), b.weight("attn_q_norm.weight", il))
    k = b.norm_rms(b.heads(k, d, n_head_kv), b.weight("attn_k_norm.weight", il))
    return q, k, ops.rms_norm(v, b.norm_rms_eps) if shared else v


def _head(b: Builder, x: Tensor, tokens: Tensor) -> Graph:
    """From hidden states (E, T) to logits, and what the heads behind them say."""
    selects = b.weight_or_none("selector_hidden.weight") is not None
    scale = b.keys.real("logit_scale", 0.0) if selects else 0.0
    softcap = b.keys.real("final_logit_softcapping", 0.0) if selects else 0.0
    logits = b.graph.expand(spread(b, b.logits(x, scale=scale, softcap=softcap, biased=False)))
    return _finished(b, logits, x, tokens)


def _finished(b: Builder, logits: Tensor, hidden: Tensor, tokens: Tensor) -> Graph:
    """The end: logits as they are, or what the heads that the file has make of them."""
    if b.weight_or_none("markov_w1.weight") is not None:
        logits, sure = biased_by_pairs(b, logits, hidden, tokens)
        if sure is not None:
            b.embeddings(sure)
    if b.weight_or_none("selector_hidden.weight") is not None:
        b.embeddings(candidates(b, logits, hidden, tokens))
    return b.embeddings(logits)


class _Convolution:
    """What stands before and behind a part of a layer: both weighted by the same product of what comes in."""

    def __init__(self, b: Builder, x: Tensor, name: Literal["attn", "ffn"], il: int) -> None:
        self.b = b
        self.base = b.weight_or_none(f"{name}_conv_base", il)  # (E, W, 2)
        project = b.weight_or_none(f"{name}_conv_proj.weight", il)
        self.dynamic = None if project is None else b.mul_mat(project, x)  # (2*W*G, T)
        self.before = self._convolved(x, 0)

    def behind(self, x: Tensor) -> Tensor:
        """X (E, T), convolved."""
        return self._convolved(x, 1)

    def _convolved(self, x: Tensor, side: int) -> Tensor:
        """Each token plus those before it in its block, weighted by element; without weights X as it is."""
        if self.base is None or self.dynamic is None:
            return x
        n_embd, n_tokens, n_blocks = x.ne[0], x.ne[1], self.b.batch.n_seqs
        n_taps, size, length = self.base.ne[1], self.b.keys.integer("conv_group_size"), n_tokens // n_blocks
        n_groups = n_embd // size
        blocks = ops.reshape(x, n_embd, length, n_blocks)
        all_weights = ops.reshape(self.dynamic, n_groups, n_taps, 2, n_tokens)
        strides, start = (all_weights.nb[1], all_weights.nb[3]), side * all_weights.nb[2]
        weights = ops.cont(ops.strided(all_weights, (n_groups, n_taps, n_tokens), strides, start))
        weights = ops.repeat(ops.reshape(weights, 1, n_groups, n_taps, n_tokens), size, n_groups, n_taps, n_tokens)
        base = ops.view(self.base, (n_embd * n_taps,), offset=side * self.base.nb[2])
        weights = ops.add(weights, ops.reshape(base, size, n_groups, n_taps, 1))
        out: Tensor | None = None
        all_taps = "taps_behind_zeros" in self.b.context.rules  # those before the block's begin, too

        def zeros(n: int) -> Tensor:
            return ops.elementwise("FILL", Tensor("NONE", x.type, (n_embd, n, n_blocks)), params=(0.0,))

        for tap in range(n_taps if all_taps else min(n_taps, length)):
            values = blocks
            if 0 < tap < length:
                earlier = ops.strided(blocks, (n_embd, length - tap, n_blocks), (blocks.nb[1], blocks.nb[2]))
                values = ops.concat(zeros(tap), earlier, 1) if all_taps else ops.pad_before(earlier, 0, tap)
            elif tap:
                values = zeros(length)
            values = ops.reshape(values, n_embd, n_tokens)
            weight = ops.view(weights, (size, n_groups, 1, n_tokens), weights.nb, tap * weights.nb[2])
            term = ops.mul(ops.reshape(ops.cont(weight), n_embd, n_tokens), values)
            out = term if out is None else ops.add(out, term)
        assert out is not None, "no taps"
        return out
