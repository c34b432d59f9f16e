"""deepseek4: hyper-connections, and attention to a window and to compressed blocks, of which an indexer chooses.

Source: llama.cpp 0c1e570 src/models/deepseek4.cpp, llama_model_deepseek4::graph.
"""

from ggufphys.arch.caches import INDEXER, LATENT, BlockKV
from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building import dsa, head, hyper
from ggufphys.graph.building.attention import AttentionKV, Scores, rotate
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.compressor import Blocks, block_cache, k_rotation
from ggufphys.graph.building.limited import limited_ffn
from ggufphys.graph.building.moe import Routing, read_routing
from ggufphys.graph.floats import logarithm, quotient, sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F32
from ggufphys.graph.rope import Rope, read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    streams = hyper.Streams(b)
    x = b.inp_embd(mixed=False)
    pos = b.inp_pos()
    out_ids = b.inp_out_ids()
    attention = WindowAndBlocks(b, pos)
    b.graph.expand(attention.window.mask)
    routing = read_routing(b.keys)
    x = streams.begin(x)
    for il in b.layers():
        read, write = streams.read(x, "attn", il)
        x = write(attention(b.rms(read, "attn_norm", il), il))
        read, write = streams.read(x, "ffn", il)
        for tensor in (x, write.post, write.comb):
            b.graph.expand(tensor)
        x = write(_ffn(b, b.rms(read, "ffn_norm", il), il, routing))
        b.pin(x, il)
    return b.head(b.rms(streams.head(hyper.wanted(x, out_ids)), "output_norm"))


def build_head(b: Builder) -> Graph:
    """The prediction head's graph, from token ids and hidden streams to logits (n_vocab, n_outputs)."""
    il, streams, n_tokens, n_embd = b.h.n_layer, hyper.Streams(b), b.batch.n_tokens, b.h.n_embd
    width = n_embd * streams.n
    token = b.norm_rms(head.embedded(b), b.weight("nextn.enorm.weight", il))
    hidden = ops.reshape(ops.new_input(F32, width, n_tokens, name="h"), n_embd, streams.n, n_tokens)
    hidden = b.norm_rms(hidden, b.weight("nextn.hnorm.weight", il))
    pos, out_ids = b.inp_pos(), b.inp_out_ids()
    attention = WindowAndBlocks(b, pos, windows_only=True)
    x = b.linear("nextn.eh_proj", il, ops.concat(streams.begin(token), hidden, 0), biased=False)
    read, write = streams.read(x, "attn", il)
    x = write(attention(b.norm_rms(read, b.weight("attn_norm.weight", il)), il))
    read, write = streams.read(x, "ffn", il)
    x = write(limited_ffn(b, b.norm_rms(read, b.weight("ffn_norm.weight", il)), il, read_routing(b.keys)))
    x = hyper.wanted(x, out_ids)
    x.src[0].is_output = True  # what a draft that goes on by itself starts from
    x = head.normed(b, streams.head(x))
    x.is_output = True
    return head.end(b, x)


def _ffn(b: Builder, x: Tensor, il: int, routing: Routing) -> Tensor:
    """Experts that the router chooses, or the token itself by a table."""
    table = b.weight_or_none("ffn_gate_tid2eid.weight", il)
    return limited_ffn(b, x, il, routing, None if table is None else ops.get_rows(table, b.tokens))


class WindowAndBlocks:
    """Attention of all layers: to a window of rows, which are keys and values alike, and to the layer's blocks."""

    def __init__(self, b: Builder, pos: Tensor, *, windows_only: bool = False) -> None:
        """With `windows_only` no layer has blocks: llama.cpp then has another builder, which shows values apart."""
        self.b, self.pos, self.windows_only = b, pos, windows_only
        self.d = b.h.n_embd_head_k_swa
        self.window = AttentionKV(b, b.first_kv_cache(), Scores(factor=1 / sqrtf(self.d)))
        self.rot = k_rotation(b, self.d)
        self.rope, self.rope_blocks = _ropes(b, self.d)
        self.rope_indexer = replace(self.rope_blocks, offset=b.h.indexer_head_size - self.rope.n_dims)
        self.blocks: dict[BlockKV, Blocks] = {}
        for il in range(b.h.n_layer):
            for kind, rope in ((LATENT, self.rope_blocks), (INDEXER, self.rope_indexer)):
                cache = block_cache(b, il, kind)
                if cache is not None and cache not in self.blocks:
                    self.blocks[cache] = Blocks(b, cache, rope)

    def __call__(self, x: Tensor, il: int) -> Tensor:
        """X (E, T), normed, to (E, T)."""
        b, h = self.b, self.b.h
        n_head, n_tokens, d = h.n_head[il], b.batch.n_tokens, self.d
        blocks, indexer = self._of(il, LATENT), self._of(il, INDEXER)
        rope = self.rope if blocks is None else self.rope_blocks
        row = b.rms(b.mul_mat(b.weight("attn_q_a.weight", il), x), "attn_q_a_norm", il)
        q = b.heads(b.mul_mat(b.weight("attn_q_b.weight", il), row), d, n_head)
        q = b.rope(ops.rms_norm(q, b.norm_rms_eps), self.pos, None, rope)
        kv = b.rms(b.mul_mat(b.weight("attn_kv.weight", il), x), "attn_kv_a_norm", il)
        kv = b.rope(b.heads(kv, d, 1), self.pos, None, rope)
        for part in (blocks, indexer):
            if part is not None:
                part.store(x, il)
        chosen = None if indexer is None else self._chosen(indexer, x, row, il)
        out = self._attend(q, kv, blocks, chosen, il)

        n_groups = b.keys.integer("attention.output_group_count")
        out = ops.rope_back(ops.reshape(out, d, n_head, n_tokens), self.pos, rope)
        out = ops.permute(ops.reshape(out, d * n_head // n_groups, n_groups, n_tokens), 0, 2, 1, 3)
        narrow = b.weight("attn_output_a.weight", il)
        n_lora = b.keys.integer("attention.output_lora_rank")
        if narrow.ne[2] != n_groups:  # in the file a matrix, loaded as one for each group of heads
            narrow = ops.weight(narrow.type, out.ne[0], n_lora, n_groups, name=narrow.name)
        out = ops.cont(ops.permute(ops.mul_mat(narrow, out), 0, 2, 1, 3), n_lora * n_groups, n_tokens)
        return b.mul_mat(b.weight("attn_output_b.weight", il), out)

    def _of(self, il: int, kind: str) -> Blocks | None:
        cache = block_cache(self.b, il, kind)
        return None if cache is None else self.blocks[cache]

    def _attend(self, q: Tensor, kv: Tensor, blocks: Blocks | None, chosen: Tensor | None, il: int) -> Tensor:
        """Q (D, H, T) asks the window, to which the batch's own rows (D, 1, T) are added, and blocks: (D*H, T)."""
        b, window = self.b, self.window
        if self.rot is not None:
            q, kv = rotate(q, self.rot), rotate(kv, self.rot)
        b.graph.expand(q)
        b.graph.expand(kv)
        cache = window.cache_k(il, self.b.kv_cache(il).n_embd_k_gqa, 1)
        window.store_k(cache, kv)
        keys, mask = window.read_k(cache, self.d, 1), window.mask
        if blocks is not None:
            keys = ops.concat(keys, blocks.keys(il), 2)
            of_blocks = blocks.mask if chosen is None else dsa.only(blocks.mask, chosen, mask.type)
            mask = ops.concat(mask, of_blocks, 0)
        values = ops.view(keys, keys.ne, keys.nb) if self.windows_only else keys
        out = window.attend(q, keys, values, mask=mask, sinks=b.weight("attn_sinks.weight", il))
        return out if self.rot is None else rotate(out, self.rot)

    def _chosen(self, indexer: Blocks, x: Tensor, row: Tensor, il: int) -> Tensor:
        """The blocks that each token of X (E, T) attends to: (n_top_k, T/S, 1, S)."""
        b, d, n = self.b, indexer.width, indexer.n_read
        q = b.mul_mat(b.weight("indexer.attn_q_b.weight", il), row)
        n_head, per_stream = q.ne[0] // d, x.ne[1] // n
        q = b.rope(b.heads(q, d, n_head), self.pos, None, self.rope_indexer)
        assert indexer.rot is not None, "indexers rotate their keys"
        q = rotate(q, indexer.rot)
        weights = ops.scale(b.mul_mat(b.weight("indexer.proj.weight", il), x), 1 / sqrtf(d * n_head))
        keys = indexer.keys(il)
        q = ops.strided(q, (d, n_head, per_stream, n), (q.nb[1], q.nb[2], q.nb[3] // n))
        strides = (weights.nb[1], weights.nb[2] // n, weights.nb[3] // n)
        weights = ops.strided(weights, (n_head, per_stream, 1, n), strides)
        scores = dsa.lightning_indexer(q, keys, weights, indexer.mask)
        return ops.cont(dsa.top_k(scores, min(scores.ne[0], b.h.indexer_top_k)))


def _ropes(b: Builder, d: int) -> tuple[Rope, Rope]:
    """The rotation of layers without blocks, and of those with them: the last elements of a head of D are turned."""
    rope = read_rope(b.keys, b.h, "norm")
    n_dims = b.keys.integer("rope.dimension_count_swa", rope.n_dims)
    plain = Rope(
        n_dims=n_dims, mode="norm", n_ctx_orig=0, freq_base=rope.freq_base, beta_fast=0.0, beta_slow=0.0,
        offset=d - n_dims,
    )  # fmt: skip
    attn_factor = quotient(1, 1 + 0.1 * logarithm(quotient(1, rope.freq_scale))) if rope.ext_factor else 1.0
    base = b.keys.real("attention.compress_rope_freq_base", rope.freq_base)
    return plain, replace(rope, n_dims=n_dims, freq_base=base, attn_factor=attn_factor, offset=d - n_dims)
