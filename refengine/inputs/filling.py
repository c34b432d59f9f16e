"""What are a graph's inputs filled from?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from ggufphys.arch.caches import KVCache
from ggufphys.graph.ir import Tensor
from ggufphys.hparams.keys import Keys
from refengine.arrays import Array
from refengine.batch import Numbers, Tokens
from refengine.memory.cells import Cells
from refengine.memory.memory import Memory
from refengine.memory.states import Taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """The physical batch, where it went in each kind of cache and in the states' rows, and the model's metadata."""

    tokens: Tokens
    memory: Memory
    taken: Mapping[Cells, Numbers]
    states: Taken | None
    keys: Keys
    causal: bool
    alibi: bool

    def cells(self, tensor: Tensor) -> Cells:
        """The cells of the cache that an input belongs to."""
        return self.memory.cells(cast(KVCache, tensor.params[0]))


Fill = Callable[[Tensor, Array, Filling], None]
"""What fills an input, given as its tensor and as an array."""
