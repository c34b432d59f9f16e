"""What does a model remember between batches? The bytes of its caches, and which cells and rows hold what."""

from collections.abc import Sequence

import numpy as np

from ggufphys.arch.caches import BlockKV, BlockState, KVCache, LayerCache, RecurrentState, WindowKV
from ggufphys.context import ContextParams
from ggufphys.graph.ir import Tensor
from refengine.arrays import reserved_bytes
from refengine.batch import Numbers, Split, Tokens
from refengine.blocks import U8
from refengine.memory.cells import Cells
from refengine.memory.states import States, Taken
from refengine.memory.windows import Window


class Memory:
    """All caches of one context: bytes by the params of the graph's tensors, cells by kind of cache, rows of states."""

    def __init__(self, context: ContextParams, layers: tuple[tuple[LayerCache, ...], ...]) -> None:
        self.context = context
        self.layers = layers
        self._bytes: dict[object, U8] = {}
        self._cells: dict[object, Cells] = {}
        self._states = States(context.n_seq_max) if self._has(RecurrentState) else None

    def _has(self, kind: type[LayerCache]) -> bool:
        return any(isinstance(cache, kind) for layer in self.layers for cache in layer)

    @property
    def split(self) -> Split:
        """How llama.cpp makes physical batches for such a memory."""
        streams = {cells.n_stream for cells in self.all_cells()}
        if self._states is None:
            return "consecutive" if max(streams, default=1) > 1 else "simple"
        return "equal" if streams == {1} else "consecutive"

    def raw(self, tensor: Tensor) -> U8:
        """The bytes of a cache; zeros at first."""
        raw = self._bytes.get(tensor.params)
        if raw is None:
            raw = self._bytes[tensor.params] = reserved_bytes(tensor.nbytes)
        assert len(raw) == tensor.nbytes, f"cache {tensor.params} has {len(raw)} bytes, the graph {tensor.nbytes}"
        return raw

    @property
    def held_bytes(self) -> int:
        """Bytes of all caches that were used so far, touched or not."""
        return sum(len(raw) for raw in self._bytes.values())

    def cells(self, cache: KVCache) -> Cells:
        """The cells of a kind of cache; layers with windows of one length share them."""
        n_swa, chunked = (cache.n_swa, cache.chunked) if isinstance(cache, WindowKV) else (0, False)
        n_stream, n_cells = cache.n_stream(self.context), cache.n_cells(self.context)
        key = (cache.kind, n_swa, n_stream, n_cells)
        cells = self._cells.get(key)
        if cells is None:
            window: Window = "chunked" if chunked else "standard"
            cells = self._cells[key] = Cells(n_stream, n_cells, n_swa, window)
        return cells

    def all_cells(self) -> tuple[Cells, ...]:
        """The cells of every kind of KV cache that the model has: of those that hold a row for each position."""
        caches = (cache for layer in self.layers for cache in layer)
        kinds = (cache for cache in caches if isinstance(cache, KVCache) and not isinstance(cache, BlockKV))
        return tuple(dict.fromkeys(self.cells(cache) for cache in kinds if cache.n_embd_k_gqa))

    def lengths(self) -> tuple[int, ...]:
        """How many positions each sequence has, as far as cells tell."""
        found = [0] * self.context.n_seq_max
        for cells in self.all_cells():
            for sequence in np.unique(cells.sequences[cells.sequences >= 0]).tolist():
                longest = int(cells.positions[cells.sequences == sequence].max()) + 1
                found[sequence] = max(found[sequence], longest)
        return tuple(found)

    def remove(self, sequence: int, first_position: int) -> None:
        """Forget a sequence from a position on.

        Raises:
            ValueError: recurrent states, and those of blocks, know no positions: they are forgotten as a whole.
        """
        if first_position and self._has(BlockState):
            raise ValueError(f"sequence {sequence} has blocks that are not whole: it can be removed as a whole alone")
        if self._states is not None:
            if first_position:
                raise ValueError(f"sequence {sequence} has recurrent states: it can be removed as a whole alone")
            self._states.remove(sequence)
        for cells in self.all_cells():
            cells.remove(sequence, first_position)

    def take(self, tokens: Tokens) -> dict[Cells, Numbers]:
        """Put a batch into the cells of each kind: the cells' numbers."""
        return {cells: cells.take(tokens) for cells in self.all_cells()}

    def take_states(self, sequences: Sequence[int]) -> Taken | None:
        """Give rows of states to the sequences of a batch; None where nothing is recurrent."""
        return None if self._states is None else self._states.take(sequences)
