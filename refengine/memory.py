"""What does a model remember between batches? The bytes of its caches, and which cells hold what."""

from ggufphys.arch.caches import KVCache, LayerCache, WindowKV
from ggufphys.graph.ir import Tensor
from ggufphys.params import ContextParams
from refengine.arrays import aligned_bytes
from refengine.blocks import U8
from refengine.cells import Cells, Numbers, Tokens


class Memory:
    """All caches of one context: bytes by the params of the graph's tensors, cells by kind of cache."""

    def __init__(self, context: ContextParams, layers: tuple[tuple[LayerCache, ...], ...]) -> None:
        self.context = context
        self.layers = layers
        self._bytes: dict[object, U8] = {}
        self._cells: dict[object, Cells] = {}

    def raw(self, tensor: Tensor) -> U8:
        """The bytes of a cache; zeros at first."""
        raw = self._bytes.get(tensor.params)
        if raw is None:
            raw = self._bytes[tensor.params] = aligned_bytes(tensor.nbytes)
        assert len(raw) == tensor.nbytes, f"cache {tensor.params} has {len(raw)} bytes, the graph {tensor.nbytes}"
        return raw

    def cells(self, cache: KVCache) -> Cells:
        """The cells of a kind of cache; layers with windows of one length share them."""
        n_swa = cache.n_swa if isinstance(cache, WindowKV) else 0
        n_stream, n_cells = cache.n_stream(self.context), cache.n_cells(self.context)
        key = (cache.kind, n_swa, n_stream, n_cells)
        cells = self._cells.get(key)
        if cells is None:
            cells = self._cells[key] = Cells(n_stream, n_cells, n_swa)
        return cells

    def all_cells(self) -> tuple[Cells, ...]:
        """The cells of every kind of KV cache that the model has."""
        kinds = (cache for layer in self.layers for cache in layer if isinstance(cache, KVCache))
        return tuple(dict.fromkeys(self.cells(cache) for cache in kinds if cache.n_embd_k_gqa))

    def remove(self, sequence: int, first_position: int) -> None:
        """Forget a sequence from a position on."""
        for cells in self.all_cells():
            cells.remove(sequence, first_position)

    def take(self, tokens: Tokens) -> dict[Cells, Numbers]:
        """Put a batch into the cells of each kind: the cells' numbers."""
        return {cells: cells.take(tokens) for cells in self.all_cells()}
