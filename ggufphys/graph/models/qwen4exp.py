"""qwen4exp: gated delta nets, gated attention to chosen blocks in some layers, experts; several residual streams.

Source: llama.cpp 0c1e570 src/models/qwen4exp.cpp, llama_model_qwen4exp::graph.
"""

from functools import cache

from ggufphys.graph import ops
from ggufphys.graph.building import dsa
from ggufphys.graph.building.attention import AttentionKV, Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.delta_net import all_slots, linear_attention
from ggufphys.graph.building.hyper import wanted
from ggufphys.graph.building.hyper_gated import GatedStreams
from ggufphys.graph.building.ngrams import add_ngrams, inp_ngrams
from ggufphys.graph.building.qsa import BlockMeans
from ggufphys.graph.building.qsa_pools import PooledBlocks
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models.qwen3next import ffn, mix_gated
from ggufphys.graph.models.qwen35 import delta_net_parts
from ggufphys.graph.rope import Rope, read_rope, read_sections


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "imrope", sections=read_sections(b.keys))
    ngrams_first = "rows_first" in b.context.rules and "blocks_pooled" in b.context.rules
    ngrams = inp_ngrams(b) if ngrams_first else None
    x = b.inp_embd()
    rs = Recurrent(b)
    attention = attentions(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_v)))
    ratio_of_all = next(filter(None, (_ratio(b, il) for il in range(b.h.n_layer))), 0)
    pools = PooledBlocks(b, rope, ratio_of_all) if "blocks_pooled" in b.context.rules and ratio_of_all else None
    pos = b.inp_pos(rope.n_pos_per_embd)
    out_ids = b.inp_out_ids()
    ngrams = ngrams if ngrams_first else inp_ngrams(b)
    connections = GatedStreams(b)
    streams = connections.begin(x)
    if "blocks_pooled" in b.context.rules:
        b.graph.expand(streams)

    @cache
    def blocks(attend: AttentionKV, ratio: int) -> BlockMeans:
        return BlockMeans(b, attend, pos, rope, ratio)

    for il in b.layers():
        if ngrams is not None and _reads_ngrams(b, il):
            streams = add_ngrams(rs, connections, streams, ngrams, il)
        x, inject = connections.read(streams, "attn", il)
        b.graph.expand(x)
        if b.recurrent(il) is not None:
            x = _linear_attention(b, rs, x, il)
        else:
            attend, ratio = attention[b.kv_cache(il)], _ratio(b, il)
            if not ratio:
                mask = None  # to all
            elif pools is not None:
                mask = pools.mask(x, pos, attend.mask, il)
            else:
                mask = dsa.only(attend.mask, blocks(attend, ratio).top_k(x, il))
            x = _attention(b, attend, x, pos, rope, mask, il)
        if b.is_last(il):
            x, inject, streams = ops.get_rows(x, out_ids), ops.get_rows(inject, out_ids), wanted(streams, out_ids)
        streams = connections.write(streams, x, inject, il)
        x, inject = connections.read(streams, "ffn", il)
        streams = connections.write(streams, ffn(b, x, il), inject, il)
        b.pin(streams, il)
    return b.head(connections.end(streams))


def _reads_ngrams(b: Builder, il: int) -> bool:
    state = b.recurrent(il)
    return state is not None and state.n_embd_p > 0


def _ratio(b: Builder, il: int) -> int:
    """Cells of a block in this layer; 0 where attention is to all."""
    ratios = b.h.compress_ratios
    return ratios[il] if isinstance(ratios, tuple) else ratios or 0


def _attention(
    b: Builder, attention: AttentionKV, x: Tensor, pos: Tensor, rope: Rope, mask: Tensor | None, il: int
) -> Tensor:
    """(E, T) to (E, T), over the chosen cells alone if a mask says which."""
    q, k, v = (b.linear(f"attn_{part}", il, x, biased=False) for part in "qkv")
    return mix_gated(b, attention, (q, k, v), pos, rope, il, mask=mask)


def _linear_attention(b: Builder, rs: Recurrent, x: Tensor, il: int) -> Tensor:
    qkv, z, gate, beta = delta_net_parts(b, rs, x, il)
    return linear_attention(
        b, rs, rs.conv_input(qkv, il, all_slots(rs)[::-1], dense=True), z, gate, beta, il, gated_by="sigmoid"
    )
