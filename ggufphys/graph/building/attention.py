"""Attention over a KV cache: the inputs that all layers with the same cache share, and the nodes of one layer.

Legend as in `blocks`. Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_context::build_attn, build_attn_mha;
src/llama-kv-cache.cpp, get_k, get_v, cpy_k, cpy_v, build_input_k_idxs, build_input_v_idxs.
"""

from collections.abc import Mapping

from ggufphys.arch.caches import KVCache, WindowKV, row_bytes, row_stride
from ggufphys.errors import GGUFError
from ggufphys.frozen import dataclass
from ggufphys.gguf import SIZES, GGMLType
from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F16, F32, I64


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What becomes of QK before the softmax: times `factor`, kept within `softcap` unless 0.

    `max_bias` is ALiBi's: a bias that grows with the distance. `before_cap` multiplies QK in front of the cap.
    """

    factor: float
    before_cap: float = 1.0
    softcap: float = 0.0
    max_bias: float = 0.0


def attentions(b: Builder, scores: Scores | None = None) -> Mapping[KVCache, "AttentionKV"]:
    """One for each kind of KV cache that the model's layers have; ask with `b.kv_cache(il)`."""
    first: dict[int, int] = {}  # most layers share what they keep with another: one object
    for il, caches in enumerate(b.caches):
        first.setdefault(id(caches), il)
    kinds = dict.fromkeys(cache for il in first.values() if (cache := b.kv_cache_or_none(il)) is not None)
    alike: dict[object, AttentionKV] = {}
    # Layers of different widths share a cache object in llama.cpp, and its inputs: what counts is which cells it keeps.
    found = {cache: alike.setdefault(_cells(cache), AttentionKV(b, cache, scores)) for cache in kinds}
    if "rotations_alike" in b.context.rules:  # those of the cache without a window
        for whole in [of for cache, of in found.items() if not isinstance(cache, WindowKV)][:1]:
            for attention in found.values():
                attention.k_rot, attention.v_rot = whole.k_rot, whole.v_rot
    return found


def _cells(cache: KVCache) -> object:
    return type(cache), cache.kind, getattr(cache, "n_swa", 0), getattr(cache, "ratio", 1)


def _plain_rows(b: Builder) -> tuple[bool, bool]:
    """Whether rows of keys, and those of values, are never rotated, by the build's rules."""
    if "caches_as_they_are" in b.context.rules:
        return True, True
    if "rotations_alike" not in b.context.rules:
        return False, False
    sizes = [b.n_embd_head(b.kv_cache_or_none(il) or b.first_kv_cache()) for il in range(len(b.caches))]
    k, v = ({size[i] * n for size, n in zip(sizes, b.h.n_head_kv, strict=False)} for i in (0, 1))
    return len(k) > 1, len(v) > 1


class AttentionKV:
    """Attention over one kind of cache. Layers that have it call this with their queries, keys and values."""

    def __init__(self, b: Builder, cache: KVCache, scores: Scores | None = None) -> None:
        context, n_tokens = b.context, b.batch.n_tokens
        self.b = b
        # llama.cpp has two builders: the one for models that have windows stores in another order.
        self.k_first = b.has_windows
        self.scores = scores or Scores(factor=1 / sqrtf(b.h.n_embd_head_k or 1))
        self.n_cells = cache.n_cells(context)
        self.n_kv = min(self.n_cells, b.batch.n_kv or self.n_cells)
        self.n_stream = cache.n_stream(context)
        # A reserved graph looks at all streams, one that runs at those of its sequences.
        one_each = self.n_stream > 1 and b.batch.n_kv is not None
        self.n_read, self.first_read = (b.batch.n_seqs, b.batch.first_stream) if one_each else (self.n_stream, 0)
        # Without flash attention V is kept transposed: each element is a row, all layers as wide as the widest.
        self.v_padded = b.n_embd_v_gqa_max if context.v_trans else 0
        self.k_idxs = ops.new_input(I64, n_tokens, name="k_idxs", params=(cache,))
        self.v_idxs = ops.new_input(I64, n_tokens * (self.v_padded or 1), name="v_idxs", params=(cache,))
        # A reserved graph looks at all streams of the cache, whose mask is that of the batch's sequences.
        n_masks = 1 if self.n_stream == 1 else b.batch.n_seqs
        mask_shape = (self.n_kv, n_tokens // n_masks, 1, n_masks)
        self.mask = b.mask(*mask_shape, name="kq_mask", params=(cache,))
        first_k, first_v = b.n_embd_head(b.kv_cache_or_none(0) or cache)  # llama.cpp asks the first layer for both
        n_embd_head_k, n_embd_head_v = b.n_embd_head(cache)
        if "rotations_alike" in b.context.rules:
            n_embd_head_k = first_k
        plain_k, plain_v = _plain_rows(b)
        self.k_rot = None if plain_k or first_k % 64 else rotation(context.type_k, n_embd_head_k, largest=True)
        self.v_rot = None if plain_v or first_v % 64 else rotation(context.type_v, n_embd_head_v, largest=False)

    def __call__(
        self, q: Tensor, k: Tensor | None, v: Tensor | None, il: int,
        *, sinks: Tensor | None = None, scores: Scores | None = None, cache_of: int | None = None, biased: bool = True,
    ) -> Tensor:  # fmt: skip
        """`mix`, and the output projection: (E, T)."""
        x = self.mix(q, k, v, il, sinks=sinks, scores=scores, cache_of=cache_of)
        return self.b.linear("attn_output", il, x, biased=biased)

    def mix(
        self, q: Tensor, k: Tensor | None, v: Tensor | None, il: int,
        *, sinks: Tensor | None = None, scores: Scores | None = None, cache_of: int | None = None,
        bias: Tensor | None = None, mask: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Store K and V (D, K, T) and attend with Q (D, H, T): (D*H, T), before the output projection.

        A quantised cache keeps rotated rows, whose elements have no outliers; Q is rotated alike, the result back.
        A layer without K and V of its own reads those of layer `cache_of`. A `mask` takes the place of the cache's.

        Raises:
            GGUFError: the cache's rows are of another length, as an array of heads for each layer may have it.
        """
        if "parts_not_rotated" in self.b.context.rules:
            self._refuse_parts((q, k) if self.k_rot is not None else (), (v,) if self.v_rot is not None else ())
        if self.k_rot is not None:
            q = rotate(q, self.k_rot)
            k = rotate(k, self.k_rot) if k is not None else None
        if self.v_rot is not None and v is not None:
            v = rotate(v, self.v_rot)
        for tensor in (q, k, v) if self.k_first else (q, v, k):
            if tensor is not None:
                self.b.graph.expand(tensor)
        source = il if cache_of is None else cache_of
        sizes = self.b.n_embd_head(self.b.kv_cache(source))
        k_heads, v_heads = ((size, self.b.h.n_head_kv[source]) for size in sizes)
        cache_k, cache_v = self.cache_k(source, *k_heads), self.cache_v(source, *v_heads)
        if k is not None:
            kept = self.b.kv_cache(source).n_embd_k_gqa
            if k.ne[0] * k.ne[1] != kept:
                raise GGUFError(f"layer {il} makes keys of {k.ne[0] * k.ne[1]} elements, and keeps {kept} of each")
            self.store_k(cache_k, k)
        if v is not None:
            self.store_v(cache_v, v)
        n_read = self.b.heads_read[il] if k is None else k_heads[1]  # of its own
        keys, values = self.read_k(cache_k, sizes[0], n_read), self.read_v(cache_v, sizes[1], n_read)
        attended = self.attend(q, keys, values, sinks=sinks, scores=scores, bias=bias, mask=mask)
        return attended if self.v_rot is None else rotate(attended, self.v_rot)

    def _refuse_parts(self, *groups: tuple[Tensor | None, ...]) -> None:
        if any(x is not None and not x.is_contiguous for group in groups for x in group):
            raise ends_rotating(self.b, "queries, keys and values are parts of one product", "or a build from b9093 on")

    # -- the cache

    def cache_k(self, il: int, n_embd_head: int, n_head_kv: int) -> Tensor:
        """Keys of a layer (D*K, C, S)."""
        width = n_embd_head * n_head_kv
        return ops.weight(self.b.context.type_k, width, self.n_cells, self.n_stream, params=("k", il))

    def cache_v(self, il: int, n_embd_head: int, n_head_kv: int) -> Tensor:
        """Values of a layer (D*K, C, S), padded without flash attention."""
        width = self.v_padded or n_embd_head * n_head_kv
        return ops.weight(self.b.context.type_v, width, self.n_cells, self.n_stream, params=("v", il))

    def store_k(self, cache: Tensor, k: Tensor) -> None:
        """Write K into rows of the cache."""
        stride, row = k.nb[0], k.nb[2]
        rows = ops.view(k, (k.ne[0] * k.ne[1], k.ne[2]), (stride, row, row * k.ne[2], row * k.ne[2]))
        self.b.graph.expand(ops.set_rows(self.merged(cache), rows, self.k_idxs))

    def store_v(self, cache: Tensor, v: Tensor) -> None:
        """Write V into rows of the cache; without flash attention each element is a row, since V is kept transposed."""
        width, n_tokens = v.ne[0] * v.ne[1], v.ne[2]
        if not self.v_padded:
            stride, row = v.nb[0], v.nb[2]
            rows = ops.view(v, (width, n_tokens), (stride, row, row * n_tokens, row * n_tokens))
            self.b.graph.expand(ops.set_rows(self.merged(cache), rows, self.v_idxs))
            return
        dense = v.nb[2] == row_bytes(v.type, width)
        flat = ops.reshape(v, width, n_tokens) if dense else ops.cont(v, width, n_tokens)
        if width < self.v_padded:
            flat = ops.pad(flat, self.v_padded, n_tokens)
        elements = ops.reshape(cache, 1, cache.ne[0] * cache.ne[1] * cache.ne[2])
        self.b.graph.expand(ops.set_rows(elements, ops.reshape(flat, 1, flat.ne[0] * flat.ne[1]), self.v_idxs))

    def merged(self, cache: Tensor) -> Tensor:
        """All streams' cells as one list of rows; a reshape node only when there are several."""
        return cache if self.n_stream == 1 else ops.reshape(cache, cache.ne[0], cache.ne[1] * cache.ne[2])

    def read_k(self, cache: Tensor, n_embd_head: int, n_head_kv: int) -> Tensor:
        """The cache as (D, K, C, S)."""
        cell = row_bytes(cache.type, cache.ne[0])
        strides = (cache.nb[0], row_stride(cache.type, n_embd_head), cell, cell * self.n_cells)
        return ops.view(cache, (n_embd_head, n_head_kv, self.n_kv, self.n_read), strides, self.first_read * strides[3])

    def read_v(self, cache: Tensor, n_embd_head: int, n_head_kv: int) -> Tensor:
        """The cache as (D, K, C, S), or transposed as (C, K, D, S)."""
        if not self.v_padded:
            return self.read_k(cache, n_embd_head, n_head_kv)
        row = row_bytes(cache.type, self.n_cells)
        strides = (cache.nb[0], row * n_embd_head, row, row * cache.ne[0])
        return ops.view(cache, (self.n_kv, n_head_kv, n_embd_head, self.n_read), strides, self.first_read * strides[3])

    # -- the mixture

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor,
        *, sinks: Tensor | None = None, scores: Scores | None = None, v_mla: Tensor | None = None,
        mask: Tensor | None = None, bias: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """softmax(QK) V: see `attend`."""
        return attend(self.b, q, k, v, mask or self.mask, scores or self.scores, sinks=sinks, v_mla=v_mla, bias=bias)


class AttentionK(AttentionKV):
    """Attention over a cache of keys alone, whose first elements are the values (MLA)."""

    def mix_latent(
        self, q: Tensor, k: Tensor, n_embd_v: int, il: int, *, v_mla: Tensor | None, after_k: Tensor | None = None,
        mask: Tensor | None, sinks: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Store K (D, 1, T) and attend with Q (D, H, T); `v_mla` (n_embd_v, D, H) decompresses what comes of it.

        `after_k` is V as the model computes it, expanded between Q and K, not stored. A `mask` takes the place of the
        cache's.
        """
        n_embd_head, _ = self.b.n_embd_head(self.b.kv_cache(il))
        keys = self.read_k(self.store_latent(q, k, il, after_k=after_k), n_embd_head, self.b.h.n_head_kv[il])
        values = ops.view(keys, (n_embd_v, *keys.ne[1:]), keys.nb)
        return self.attend(q, keys, values, sinks=sinks, v_mla=v_mla, mask=mask)

    def store_latent(self, q: Tensor, k: Tensor, il: int, *, after_k: Tensor | None = None) -> Tensor:
        """Store K behind Q, as `mix_latent` does: the layer's cache, all of it."""
        for tensor in (q, after_k, k):
            if tensor is not None:
                self.b.graph.expand(tensor)
        cache = self.cache_k(il, self.b.kv_cache(il).n_embd_k_gqa, 1)  # hyperparameters say how wide, not the weights
        self.store_k(cache, k)
        return cache


def attend(
    b: Builder, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scores: Scores,
    *, sinks: Tensor | None = None, v_mla: Tensor | None = None, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Q (D, H, T) with K and V (D, K, C, S), V possibly transposed: (D*H, T).

    One operation with flash attention, else products with the scores (C, T, H) between. A `bias` on the scores, such as
    of relative positions, keeps flash attention away.

    Source: llama.cpp 0c1e570 src/llama-graph.cpp, build_attn_mha.
    """
    v_transposed = v.nb[1] > v.nb[2]
    n_stream = k.ne[3]
    per_stream = q.ne[2] // n_stream
    q = ops.view(q, (q.ne[0], q.ne[1], per_stream, n_stream), (q.nb[0], q.nb[1], q.nb[2], q.nb[2] * per_stream))
    q, k, v = (ops.permute(x, 0, 2, 1, 3) for x in (q, k, v))
    if b.context.flash_attn and bias is None:
        out = _flash(q, k, ops.transpose(v) if v_transposed else v, mask, scores, sinks)
        if v_mla is not None:
            out = ops.permute(ops.mul_mat(v_mla, ops.permute(out, 0, 2, 1, 3)), 0, 2, 1, 3)
            out = ops.cont(out)
        return b.graph.expand(ops.reshape(out, out.ne[0] * out.ne[1], out.ne[2] * out.ne[3]))
    x = ops.mul_mat(k, q)
    if scores.softcap:
        x = ops.scale(ops.unary(ops.scale(x, scores.before_cap / scores.softcap), "tanh"), scores.softcap)
    if bias is not None:
        x = ops.add(x, bias)
    x = ops.soft_max(x, mask, scores.factor, scores.max_bias, sinks)
    out = ops.mul_mat(v if v_transposed else ops.cont(ops.transpose(v)), x)
    if v_mla is not None:
        out = ops.mul_mat(v_mla, out)
    out = ops.permute(out, 0, 2, 1, 3)
    return b.graph.expand(ops.cont(out, out.ne[0] * out.ne[1], out.ne[2] * out.ne[3]))


def _flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scores: Scores, sinks: Tensor | None) -> Tensor:
    k, v = (ops.cast(x, F16) if x.type is F32 else x for x in (k, v))
    return ops.flash_attn_ext(q, k, v, mask, scores.factor, scores.max_bias, scores.softcap, sinks)


# -- rotated caches


def ends_rotating(b: Builder, where: str, instead: str) -> ValueError:
    """The error for a build that ends where rows of a quantised cache are rotated."""
    types = f"type_k {b.context.type_k.name.lower()}, type_v {b.context.type_v.name.lower()}"
    found = f"this llama.cpp ends with a quantized KV cache ({types}) where {where}"
    return ValueError(f"{found}: expected f16, bf16 or f32, {instead}")


def rotation(ggml_type: GGMLType, n_embd_head: int, *, largest: bool) -> Tensor | None:
    """The Hadamard matrix that rotates rows of a quantised cache, an input; None where llama.cpp rotates nothing.

    Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, attn_rot_k, build_input_k_rot, build_input_v_rot.
    """
    if SIZES[ggml_type].block_size == 1 or n_embd_head == 0:
        return None
    return hadamard(n_embd_head, largest=largest)


def hadamard(n_embd_head: int, *, largest: bool = True) -> Tensor:
    """A Hadamard matrix of 64 rows, or of the `largest` power of two that divides the size of a head.

    A size of 0, which every power divides, is a ValueError: llama.cpp looks for the largest until its integer ends.
    """
    if n_embd_head == 0:
        raise ValueError("this llama.cpp ends where rows of no length are rotated: heads of 0, expected 1 or more")
    size = 64
    while largest and n_embd_head % (2 * size) == 0:
        size *= 2
    return ops.new_input(F32, size, size, name="rotation")


def rotate(x: Tensor, matrix: Tensor) -> Tensor:
    """Each stretch of the matrix's width times it: a product on a reshaped view, shaped back.

    Source: llama.cpp 0c1e570 src/llama-impl.h, llama_mul_mat_hadamard.
    """
    shape = (matrix.ne[0], x.ne[0] * x.ne[1] * x.ne[2] * x.ne[3] // matrix.ne[0])
    rows = ops.reshape(x, *shape) if x.is_contiguous else ops.cont(x, *shape)
    return ops.reshape(ops.mul_mat(matrix, rows), *x.ne)
