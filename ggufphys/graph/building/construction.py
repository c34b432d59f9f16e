"""What do all pieces of one graph share? Hyperparameters, context and batch, what layers keep, the weights by name.

Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_context, build_lora_mm, build_lora_mm_id.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from ggufphys.arch.caches import FullKV, KVCache, LayerCache, RecurrentState, WindowKV
from ggufphys.arch.loading import HEADS_BY_LAYER
from ggufphys.arch.scales import PLAIN, scaled_names
from ggufphys.context import ContextParams
from ggufphys.errors import GGUFError
from ggufphys.frozen import replace
from ggufphys.gguf import GGMLType, TensorInfo
from ggufphys.gguf.names import split_name
from ggufphys.graph import ops
from ggufphys.graph.batch import Batch
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.hparams.hparams import HParams
from ggufphys.hparams.keys import Keys

Adapters = Mapping[str, Sequence[tuple[TensorInfo, TensorInfo]]]  # by weight: LoRA's a and b, one pair an adapter


class Construction:
    """One graph under construction. `keys` are the file's, for what only this architecture's graph asks for."""

    def __init__(
        self,
        h: HParams,
        keys: Keys,
        tensors: Mapping[str, TensorInfo],
        caches: Sequence[tuple[LayerCache, ...]],
        context: ContextParams,
        batch: Batch,
        adapters: Adapters | None = None,
        *,
        layers: Sequence[int] | None = None,
        weights: dict[str, Tensor] | None = None,
    ) -> None:
        self.h = h if h.arch in HEADS_BY_LAYER else _as_first(h, caches)
        self.heads_read = h.n_head_kv  # of a cache, by layer whatever else is as in the first
        self.keys = keys
        self._weights = {} if weights is None else weights  # made by name; graphs may share them, nodes never
        self._layers = range(h.n_layer_run) if layers is None else layers
        self.tensors = tensors
        self.caches = caches
        self.context = context
        self.batch = batch
        self.adapters = adapters or {}
        self.graph = Graph()
        self.embd: Tensor | None = None  # the hidden states that embeddings are made of
        self.has_windows = any(isinstance(c, WindowKV) for layer in caches for c in layer)  # whatever the context has
        self.stack = "blk"  # in front of the names of layers' weights; where there are several, a model says which
        self.scales_at: int | None = None  # the layer whose scales are used, where it is not the weights'
        self.norm_rms_eps = keys.real("attention.layer_norm_rms_epsilon", 0.0)
        self.norm_eps = keys.real("attention.layer_norm_epsilon", 0.0)

    def layers(self) -> Iterator[int]:
        """The layers to build, in order: not all of them where others stand for them (`allocating.layers`).

        A model that iterates over this may use the number to ask for weights, hyperparameters and caches of the layer
        and whether it `is_last`, and for nothing else that changes the nodes: layers that have all that in common must
        have the same nodes, but for their `params`.
        """
        for il in self._layers:
            self.graph.marks.append(len(self.graph.nodes))
            yield il

    def pin(self, x: Tensor, il: int) -> None:
        """Keep a node with its layer's device, where llama.cpp's builder names it the layer's last, or a norm of it."""
        self.graph.pinned[x] = il

    def is_last(self, il: int) -> bool:
        """Whether it is the last layer that runs."""
        return il == self.h.n_layer_run - 1

    # -- what layers keep

    def kv_cache_or_none(self, il: int) -> KVCache | None:
        """What the layer attends to: of several caches the first, which holds a row for each position."""
        return next((c for c in self.caches[il] if isinstance(c, FullKV) and c.n_embd_k_gqa), None)

    def kv_cache(self, il: int) -> KVCache:
        """What the layer attends to, of a layer that has a cache.

        Raises:
            GGUFError: it has none, by heads of nothing, which ggml does not multiply.
        """
        cache = self.kv_cache_or_none(il)
        if cache is None:
            raise GGUFError(f"{self.keys.gguf.path}: layer {il} keeps nothing: heads of 0, expected some")
        return cache

    def first_kv_cache(self) -> KVCache:
        """What the first layer with a cache attends to."""
        layers = range(len(self.caches))
        return self.kv_cache(next((il for il in layers if self.kv_cache_or_none(il) is not None), 0))

    def has_window(self, il: int) -> bool:
        """Whether the layer attends to a window."""
        return isinstance(self.kv_cache_or_none(il), WindowKV)

    def recurrent(self, il: int) -> RecurrentState | None:
        """The recurrent state of a layer, if it has one."""
        return next((c for c in self.caches[il] if isinstance(c, RecurrentState)), None)

    def n_embd_head(self, cache: KVCache) -> tuple[int, int]:
        """The sizes of heads of keys and of values in layers with this cache."""
        h = self.h
        windowed = isinstance(cache, WindowKV)
        return (h.n_embd_head_k_swa, h.n_embd_head_v_swa) if windowed else (h.n_embd_head_k, h.n_embd_head_v)

    @cached_property
    def n_embd_v_gqa_max(self) -> int:
        """The width of the widest layer's values."""
        caches = (cache for layer in self.caches for cache in layer if isinstance(cache, FullKV))
        return max((cache.n_embd_v_max or cache.n_embd_v_gqa for cache in caches), default=0)

    # -- inputs

    @cached_property
    def tokens(self) -> Tensor:
        """Token ids (T,)."""
        return ops.new_input(ops.I32, self.batch.n_tokens, name="tokens")

    def take_scales_of(self, il: int) -> None:
        """From here on scales are this layer's, whosever the weights are."""
        self.scales_at = il

    def mask(self, *ne: int, name: str, params: tuple[object, ...] = ()) -> Tensor:
        """Which scores count: F16 with flash attention, else F32.

        Source: llama.cpp 0c1e570 src/llama-graph.cpp, build_attn_inp_kq_mask.
        """
        if not self.context.flash_attn:
            return ops.new_input(ops.F32, *ne, name=name, params=params)
        if "mask_cast" in self.context.rules:
            return ops.cast(ops.new_input(ops.F32, *ne, name=name, params=params), ops.F16)
        return ops.new_input(ops.F16, *ne, name=name, params=params)

    # -- weights

    def weight(self, name: str, il: int | None = None) -> Tensor:
        """A weight that must be there.

        Raises:
            GGUFError: the file does not have it.
        """
        tensor = self.weight_or_none(name, il)
        if tensor is None:
            full_name = f"{self.stack}.{il}.{name}" if il is not None else name
            raise GGUFError(f"tensor {full_name!r} is missing, which llama.cpp requires of {self.h.arch}")
        return tensor

    def weight_or_none(self, name: str, il: int | None = None) -> Tensor | None:
        """A weight, or None when the file has no such tensor."""
        full_name = f"{self.stack}.{il}.{name}" if il is not None else name
        made = self._weights.get(full_name)
        if made is None and full_name in self.tensors:
            made = self._weights[full_name] = weight_of(self.tensors[full_name])
        return made

    # -- products, the scales beside weights, and what adapters add

    @cached_property
    def scaled(self) -> frozenset[str]:
        """The weights whose products are multiplied by a scale, where the file has it."""
        return scaled_names(self.h.arch)

    def scale_of(self, name: str, il: int | None) -> Tensor | None:
        """`{name}.scale`, if the file has it and the architecture's builder uses it."""
        if name not in self.scaled:
            return None
        return self.weight_or_none(f"{name}.scale", il if il is None or self.scales_at is None else self.scales_at)

    def adapters_of(self, w: Tensor) -> Sequence[tuple[TensorInfo, TensorInfo]]:
        """The pairs of matrices that adapters add to products with this weight; none where llama.cpp's is plain."""
        pairs = self.adapters.get(w.name, ())
        return () if pairs and split_name(w.name)[1].removesuffix(".weight") in PLAIN.get(self.h.arch, ()) else pairs

    def mul_mat(self, w: Tensor, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """The product with a weight, times its scale; each adapter of that weight adds scale * b (a x)."""
        product = ops.mul_mat(w, x)
        if scale is not None:
            product = ops.mul(product, scale)
        for a, b in self.adapters_of(w):
            delta = ops.mul_mat(weight_of(b), ops.mul_mat(weight_of(a), x))
            product = ops.add(product, ops.scale(delta, 1.0))
        return product

    def mul_mat_id(self, experts: Tensor, x: Tensor, ids: Tensor, scale: Tensor | None = None) -> Tensor:
        """The product with the weights of the experts that each token chose, times each expert's scale."""
        product = ops.mul_mat_id(experts, x, ids)
        if scale is not None:
            n_expert, n_tokens = scale.ne[0], x.ne[2]
            per_token = ops.repeat(ops.reshape(scale, 1, n_expert, 1), 1, n_expert, n_tokens)
            product = ops.mul(product, ops.get_rows(per_token, ids))
        for a, b in self.adapters_of(experts):
            delta = ops.mul_mat_id(weight_of(b), ops.mul_mat_id(weight_of(a), x, ids), ids)
            product = ops.add(product, ops.scale(delta, 1.0))
        return product

    def linear(self, name: str, il: int | None, x: Tensor, *, biased: bool = True) -> Tensor:
        """A matrix product with `{name}.weight`, times `.scale` and plus `.bias` when the file has them.

        `biased` is False where llama.cpp leaves out the bias of a file that has one.
        """
        product = self.mul_mat(self.weight(f"{name}.weight", il), x, self.scale_of(name, il))
        bias = self.weight_or_none(f"{name}.bias", il) if biased else None
        return product if bias is None else ops.add(product, bias)

    def linear_ffn(self, name: str, il: int, x: Tensor, *, biased: bool = True) -> Tensor:
        """As `linear`, of a dense feed-forward layer: its scale comes last, for what adapters and the bias add, too.

        Raises:
            GGUFError: an NVFP4 weight has a bias besides, or an adapter, of which llama.cpp dies.
        """
        weight = self.weight(f"{name}.weight", il)
        product = self.mul_mat(weight, x)
        bias = self.weight_or_none(f"{name}.bias", il) if biased else None
        if bias is not None:
            product = ops.add(product, bias)
        scale = self.scale_of(name, il)
        if scale is None:
            return product
        beside = "a bias" if bias is not None else "an adapter" if weight.name in self.adapters else ""
        if beside and weight.type is GGMLType.NVFP4:
            raise GGUFError(
                f"{weight.name} is NVFP4 and has a scale and {beside}: llama.cpp ends there (build_ffn, GGML_ASSERT), "
                "since it would scale that too"
            )
        return ops.mul(product, scale)


def _as_first(h: HParams, by_layer: Sequence[Sequence[LayerCache]]) -> HParams:
    """Every layer with as many heads as the first, whatever an array says of the others.

    Caches are as wide as the array says: where that is another width, ggml ends the process over what is stored, if
    anything is. Not where 0 marks layers without attention, nor of states that take the place of all caches.
    """
    if len({*h.n_head}) > 1:
        h = replace(h, n_head=h.n_head[:1] * len(h.n_head))
    caches = [cache for layer in by_layer for cache in layer]
    everywhere = all(any(isinstance(cache, FullKV) for cache in layer) for layer in by_layer)
    attends = everywhere or (0 not in h.n_head_kv and any(isinstance(cache, FullKV) for cache in caches))
    if len({*h.n_head_kv}) > 1 and (attends or not caches):
        h = replace(h, n_head_kv=h.n_head_kv[:1] * len(h.n_head_kv))
    return h


def weight_of(info: TensorInfo) -> Tensor:
    """The tensor of a weight, its name and shape and type as the file has them."""
    return ops.weight(ops.as_known(info.ggml_type), *info.ne, name=info.name)
