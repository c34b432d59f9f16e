"""The pieces that model files are composed of, node for node as llama.cpp's builder makes them.

A `Builder` holds what all pieces of one graph share: hyperparameters, context, batch, the graph, the weights by name.

Legend: E n_embd, D head size, H n_head, K n_head_kv, T tokens in the batch, C cells of the cache, S streams.
Shapes in comments are ggml's order, innermost first.

Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_context; src/llama-kv-cache.cpp, get_k, get_v, cpy_k, cpy_v.
"""

from collections.abc import Iterator, Mapping, Sequence

from ggufphys.arch.caches import KVCache, row_bytes, row_stride
from ggufphys.gguf import SIZES, GGMLType, TensorInfo
from ggufphys.graph import ops
from ggufphys.graph.batch import Batch
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F16, F32, I32, I64
from ggufphys.hparams import HParams
from ggufphys.params import ContextParams

Adapters = Mapping[str, Sequence[tuple[TensorInfo, TensorInfo]]]  # by weight: LoRA's a and b, one pair an adapter


class Builder:
    """One graph under construction."""

    def __init__(
        self,
        h: HParams,
        tensors: Mapping[str, TensorInfo],
        context: ContextParams,
        batch: Batch,
        adapters: Adapters | None = None,
        *,
        layers: Sequence[int] | None = None,
        weights: dict[str, Tensor] | None = None,
    ) -> None:
        self.h = h
        self._weights = {} if weights is None else weights  # made by name; graphs may share them, nodes never
        self._layers = range(h.n_layer) if layers is None else layers
        self.tensors = tensors
        self.context = context
        self.batch = batch
        self.adapters = adapters or {}
        self.graph = Graph()
        self.n_embd_v_gqa_max = max(h.n_embd_head_v * k for k in h.n_head_kv)

    def layers(self) -> Iterator[int]:
        """The layers to build, in order: not all of them where others stand for them (`ggufphys.graph.layers`).

        A model that iterates over this may use the number to ask for weights, hyperparameters and caches of the layer
        and whether it `is_last`, and for nothing else: layers that have all that in common must have the same nodes.
        """
        for il in self._layers:
            self.graph.marks.append(len(self.graph.nodes))
            yield il

    def is_last(self, il: int) -> bool:
        """Whether it is the trunk's last layer."""
        return il == self.h.n_layer - 1

    # -- weights

    def weight(self, name: str, il: int | None = None) -> Tensor:
        """A weight that must be there."""
        tensor = self.weight_or_none(name, il)
        if tensor is None:
            raise KeyError(f"blk.{il}.{name}" if il is not None else name)
        return tensor

    def weight_or_none(self, name: str, il: int | None = None) -> Tensor | None:
        """A weight, or None when the file has no such tensor."""
        full_name = f"blk.{il}.{name}" if il is not None else name
        made = self._weights.get(full_name)
        if made is None and full_name in self.tensors:
            made = self._weights[full_name] = _weight(self.tensors[full_name])
        return made

    # -- products, and what adapters add to them

    def mul_mat(self, w: Tensor, x: Tensor) -> Tensor:
        """The product with a weight; each adapter of that weight adds scale * b (a x)."""
        product = ops.mul_mat(w, x)
        for a, b in self.adapters.get(w.name, ()):
            delta = ops.mul_mat(_weight(b), ops.mul_mat(_weight(a), x))
            product = ops.elementwise("ADD", product, ops.elementwise("SCALE", delta))
        return product

    def mul_mat_id(self, experts: Tensor, x: Tensor, ids: Tensor) -> Tensor:
        """The same for the experts that each token chose."""
        product = ops.mul_mat_id(experts, x, ids)
        for a, b in self.adapters.get(experts.name, ()):
            delta = ops.mul_mat_id(_weight(b), ops.mul_mat_id(_weight(a), x, ids), ids)
            product = ops.elementwise("ADD", product, ops.elementwise("SCALE", delta))
        return product

    # -- inputs

    def inp_embd(self) -> Tensor:
        """Token embeddings (E, T), looked up; the input for ready-made embeddings is reserved beside them."""
        tokens = ops.new_input(I32, self.batch.n_tokens)
        ready_made = ops.new_input(F32, self.h.n_embd, self.batch.n_tokens)
        embedding = self.weight("token_embd.weight")
        looked_up = ops.get_rows(embedding, tokens)
        for a, b in self.adapters.get(embedding.name, ()):
            delta = ops.mul_mat(_weight(b), ops.get_rows(_weight(a), tokens))
            looked_up = ops.elementwise("ADD", looked_up, ops.elementwise("SCALE", delta))
        self.graph.expand(looked_up)
        self.graph.expand(ready_made)
        return looked_up

    def inp_pos(self) -> Tensor:
        """Positions (T,)."""
        return ops.new_input(I32, self.batch.n_tokens)

    def inp_out_ids(self) -> Tensor:
        """Which tokens' logits are wanted."""
        return ops.new_input(I32, self.batch.n_outputs)

    # -- pieces of a layer

    def norm_rms(self, x: Tensor, weight: Tensor) -> Tensor:
        """RMS norm and its gain."""
        return ops.elementwise("MUL", ops.elementwise("RMS_NORM", x), weight)

    def linear(self, name: str, il: int | None, x: Tensor) -> Tensor:
        """A matrix product, and the bias when the file has one."""
        product = self.mul_mat(self.weight(f"{name}.weight", il), x)
        bias = self.weight_or_none(f"{name}.bias", il)
        return product if bias is None else ops.elementwise("ADD", product, bias)

    def heads(self, x: Tensor, n_embd_head: int, n_head: int) -> Tensor:
        """(D*H, T) seen as (D, H, T)."""
        return ops.reshape(x, n_embd_head, n_head, self.batch.n_tokens)

    def rope(self, x: Tensor, pos: Tensor, factors: Tensor | None) -> Tensor:
        """Rotary positions."""
        return ops.elementwise("ROPE", x, pos) if factors is None else ops.elementwise("ROPE", x, pos, factors)

    def ffn_gated(self, x: Tensor, il: int) -> Tensor:
        """down(act(gate(x)) * up(x)), gate and up side by side."""
        up = self.linear("ffn_up", il, x)
        gate = self.linear("ffn_gate", il, x)
        return self.linear("ffn_down", il, ops.glu(gate, up))


class AttentionKV:
    """Attention over a KV cache: the inputs that all layers with the same cache share, and the nodes of one layer."""

    def __init__(self, b: Builder, cache: KVCache) -> None:
        context, n_tokens = b.context, b.batch.n_tokens
        self.b = b
        self.n_cells = cache.n_cells(context)
        self.k_idxs = ops.new_input(I64, n_tokens)
        self.v_idxs = ops.new_input(I64, n_tokens if context.flash_attn else n_tokens * b.n_embd_v_gqa_max)
        n_stream = context.n_stream
        mask_type = F16 if context.flash_attn else F32
        self.mask = ops.new_input(mask_type, self.n_cells, n_tokens // n_stream, 1, n_stream)
        self.k_rot = _rotation(context.type_k, b.h.n_embd_head_k, largest=True)
        self.v_rot = _rotation(context.type_v, b.h.n_embd_head_v, largest=False)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, il: int) -> Tensor:
        """Store K and V (D, K, T), attend with Q (D, H, T), project: (E, T)."""
        return self.b.linear("attn_output", il, self.mix(q, k, v))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store K and V (D, K, T) and attend with Q (D, H, T): (D*H, T), before the output projection.

        A quantised cache keeps rotated rows, whose elements have no outliers; Q is rotated alike, the result back.
        """
        if self.k_rot is not None:
            q, k = rotate(q, self.k_rot), rotate(k, self.k_rot)
        if self.v_rot is not None:
            v = rotate(v, self.v_rot)
        for tensor in (q, v, k):
            self.b.graph.expand(tensor)
        cache_k, cache_v = self.store_k(k), self.store_v(v)
        attended = self.b.graph.expand(self.attend(q, self.read_k(cache_k, k), self.read_v(cache_v, v)))
        return attended if self.v_rot is None else rotate(attended, self.v_rot)

    def store_k(self, k: Tensor) -> Tensor:
        """Write K into rows of the cache (D*K, C, S); gives the cache."""
        cache = ops.weight(self.b.context.type_k, k.ne[0] * k.ne[1], self.n_cells, self.b.context.n_stream)
        rows = ops.view(k, (k.ne[0] * k.ne[1], k.ne[2]), (k.nb[0], k.nb[2], k.nb[2] * k.ne[2], k.nb[2] * k.ne[2]))
        self.b.graph.expand(ops.set_rows(self.merged(cache), rows, self.k_idxs))
        return cache

    def store_v(self, v: Tensor) -> Tensor:
        """Write V into rows of the cache; without flash attention each element is a row, since V is kept transposed."""
        width = v.ne[0] * v.ne[1]
        context = self.b.context
        if context.flash_attn:
            cache = ops.weight(context.type_v, width, self.n_cells, context.n_stream)
            rows = ops.view(v, (width, v.ne[2]), (v.nb[0], v.nb[2], v.nb[2] * v.ne[2], v.nb[2] * v.ne[2]))
            self.b.graph.expand(ops.set_rows(self.merged(cache), rows, self.v_idxs))
            return cache
        padded = self.b.n_embd_v_gqa_max
        cache = ops.weight(context.type_v, padded, self.n_cells, context.n_stream)
        flat = ops.reshape(v, width, v.ne[2])
        if width < padded:
            flat = Tensor("PAD", F32, (padded, v.ne[2]), (flat,))
        elements = ops.reshape(cache, 1, padded * self.n_cells * context.n_stream)
        self.b.graph.expand(ops.set_rows(elements, ops.reshape(flat, 1, padded * v.ne[2]), self.v_idxs))
        return cache

    def merged(self, cache: Tensor) -> Tensor:
        """All streams' cells as one list of rows; a reshape node only when there are several."""
        if self.b.context.n_stream == 1:
            return cache
        return ops.reshape(cache, cache.ne[0], cache.ne[1] * cache.ne[2])

    def read_k(self, cache: Tensor, k: Tensor) -> Tensor:
        """The cache as (D, K, C, S)."""
        size = self.b.context.type_k
        cell = row_bytes(size, cache.ne[0])
        strides = (cache.nb[0], row_stride(size, k.ne[0]), cell, cell * self.n_cells)
        return ops.view(cache, (k.ne[0], k.ne[1], self.n_cells, cache.ne[2]), strides)

    def read_v(self, cache: Tensor, v: Tensor) -> Tensor:
        """The cache as (D, K, C, S), or transposed as (C, K, D, S)."""
        size = self.b.context.type_v
        if self.b.context.flash_attn:
            cell = row_bytes(size, cache.ne[0])
            strides = (cache.nb[0], row_stride(size, v.ne[0]), cell, cell * self.n_cells)
            return ops.view(cache, (v.ne[0], v.ne[1], self.n_cells, cache.ne[2]), strides)
        row = row_bytes(size, self.n_cells)
        strides = (cache.nb[0], row * v.ne[0], row, row * cache.ne[0])
        return ops.view(cache, (self.n_cells, v.ne[1], v.ne[0], cache.ne[2]), strides)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(QK) V: one operation with flash attention, else products with the scores (C, T, H) between."""
        n_stream = self.b.context.n_stream
        per_stream = q.ne[2] // n_stream
        q = ops.view(q, (q.ne[0], q.ne[1], per_stream, n_stream), (q.nb[0], q.nb[1], q.nb[2], q.nb[2] * per_stream))
        q, k, v = (ops.permute(x, 0, 2, 1, 3) for x in (q, k, v))
        if self.b.context.flash_attn:
            k, v = (ops.cast(x, F16) if x.type is F32 else x for x in (k, v))
            out = ops.flash_attn_ext(q, k, v, self.mask)
            return ops.reshape(out, out.ne[0] * out.ne[1], out.ne[2] * out.ne[3])
        scores = Tensor("MUL_MAT", F32, (k.ne[1], q.ne[1], q.ne[2], q.ne[3]), (k, q))
        scores = ops.elementwise("SOFT_MAX", scores, self.mask)
        out = Tensor("MUL_MAT", F32, (v.ne[1], scores.ne[1], scores.ne[2], scores.ne[3]), (v, scores))
        out = ops.permute(out, 0, 2, 1, 3)
        return ops.cont(out, out.ne[0] * out.ne[1], out.ne[2] * out.ne[3])


def _weight(info: TensorInfo) -> Tensor:
    return ops.weight(ops.as_known(info.ggml_type), *info.ne, name=info.name)


def _rotation(ggml_type: GGMLType, n_embd_head: int, *, largest: bool) -> Tensor | None:
    """The Hadamard matrix that rotates rows of a quantised cache, an input; None where llama.cpp rotates nothing.

    Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, attn_rot_k, build_input_k_rot, build_input_v_rot.
    """
    if SIZES[ggml_type].block_size == 1 or n_embd_head == 0 or n_embd_head % 64:
        return None
    size = 64
    while largest and n_embd_head % (2 * size) == 0:
        size *= 2
    return ops.new_input(F32, size, size)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Each stretch of `rotation`'s width times it: a product on a reshaped view, shaped back.

    Source: llama.cpp 0c1e570 src/llama-graph.cpp, llama_mul_mat_hadamard.
    """
    n_elements = x.ne[0] * x.ne[1] * x.ne[2] * x.ne[3]
    rows = ops.reshape(x, rotation.ne[0], n_elements // rotation.ne[0])
    return ops.reshape(ops.mul_mat(rotation, rows), *x.ne)
