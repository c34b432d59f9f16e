"""How many blocks of positions does a batch complete, for models that make one row of several positions?"""

from collections.abc import Sequence

import numpy as np

from ggufphys.arch.caches import BlockKV, LayerCache
from ggufphys.graph.batch import BlockCount
from ggufphys.graph.building.kpool import N_POOL_PAD
from ggufphys.hparams.hparams import HParams
from refengine.batch import Tokens


def ratios_of(h: HParams, layers: Sequence[tuple[LayerCache, ...]]) -> tuple[int, ...]:
    """Of how many positions the model makes one row."""
    ratios = {cache.ratio for layer in layers for cache in layer if isinstance(cache, BlockKV)}
    return tuple(sorted(ratios | {h.indexer_kpool} if h.indexer_kpool else ratios))


def block_counts(ratios: Sequence[int], tokens: Tokens, lengths: Sequence[int]) -> tuple[BlockCount, ...]:
    """The blocks of each ratio; `lengths` are those of all sequences, the batch included.

    Whole blocks are rounded up to what makes the same graph, so that it serves many steps.
    """
    of_batch = [tokens.positions[tokens.sequences == sequence] for sequence in np.unique(tokens.sequences)]
    counts = []
    for ratio in ratios:
        n_new = sum(int(positions.max() + 1) // ratio - int(positions.min()) // ratio for positions in of_batch)
        n_whole = sum(n // ratio for n in lengths)
        rounded = -(-(n_whole + 1) // N_POOL_PAD) * N_POOL_PAD - 1
        counts.append(BlockCount(ratio=ratio, n_new=n_new, n_whole=rounded))
    return tuple(counts)
