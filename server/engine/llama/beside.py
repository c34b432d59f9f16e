"""What context embeds texts beside one for text? It is made when the first are asked for."""

from dataclasses import replace
from typing import Final

from ggufphys.params import Params

N_BESIDE: Final = 2048  # tokens of a text to embed, unless -ub allows more: its cache has room for them
N_PIECE: Final = 128  # that are read at a time: each is an output, which of a large vocabulary takes a megabyte, twice


def beside(params: Params, n_ctx_seq: int) -> Params:
    """The parameters of a context for embeddings beside one for text: for one text at a time, read in pieces."""
    n_ctx = min(n_ctx_seq, max(params.n_ubatch, N_BESIDE))
    n = min(n_ctx, N_PIECE)
    return replace(params, n_ctx=n_ctx, n_batch=n, n_ubatch=n, n_seq_max=1, n_outputs_max=n, kv_unified=False)
