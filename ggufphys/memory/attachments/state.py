"""How many bytes is one sequence's saved state? What llama-server keeps of prompts, in its cache and as checkpoints.

A state holds the cells of the sequence that attention can still see, layer by layer, each behind its type and row size,
and recurrent layers' one row. A *partial* state leaves out what can be rolled back without it: caches of the whole
context.

Source: llama.cpp 0c1e570 src/llama-context.cpp, state_seq_get_data; src/llama-kv-cache.cpp, state_write,
state_write_meta, state_write_data; src/llama-kv-cache-iswa.cpp and src/llama-memory-hybrid.cpp, state_write.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from ggufphys.arch import FullKV, LayerCache, WindowKV, row_bytes
from ggufphys.context import ContextParams
from ggufphys.errors import UnsupportedError
from ggufphys.gguf import SIZES, GGUFFile

_HEADER: Final = 4 + 4  # magic, sequence
_CELL: Final = 4 + 4 + 4  # position, number of sequences, the sequence
CELL_EXT: Final = 4 + 4 + 4  # of models with positions in two dimensions: both, and the token
_ROW: Final = 4 + 8  # type, bytes of a row
_ROW_TRANSPOSED: Final = 4 + 4 + 4  # type, bytes of an element, elements in a row


def state_bytes(
    layers: Iterable[Sequence[LayerCache]],
    context: ContextParams,
    n_tokens: int,
    *,
    partial: bool = False,
    cell_ext_bytes: int = 0,
) -> int:
    """Bytes of a sequence's state after `n_tokens`, as llama_state_seq_get_size_ext gives them.

    `layers` are the caches of each layer (`ArchRule.layers`); `partial` as LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY.

    Raises:
        UnsupportedError: layers keep something else than keys and values.
    """
    caches = [cache for layer in layers for cache in layer]
    windows = [cache for cache in caches if isinstance(cache, WindowKV)]
    whole = [cache for cache in caches if type(cache) is FullKV]
    if len(windows) + len(whole) < len(caches):
        raise UnsupportedError("saved states have no rule yet for layers that keep more than keys and values")
    nbytes = _HEADER
    if not (partial and windows):
        nbytes += _kv_bytes(whole, context, min(n_tokens, context.n_ctx_seq), cell_ext_bytes)
    if windows:
        n_cells = min(n_tokens, context.n_ctx_seq, max(cache.n_swa for cache in windows))
        nbytes += _kv_bytes(windows, context, n_cells, cell_ext_bytes)
    return nbytes


def cell_ext_bytes(gguf: GGUFFile) -> int:
    """What a cell keeps more where positions have two dimensions (M-RoPE)."""
    sections = gguf.get_array(f"{gguf.architecture}.rope.dimension_sections") or ()
    return CELL_EXT if any(sections) else 0


def needs_checkpoints(layers: Iterable[Sequence[LayerCache]], context: ContextParams) -> bool:
    """Can a sequence not be rolled back to any of its earlier positions? Then llama-server keeps checkpoints.

    Source: llama.cpp 0c1e570 tools/server/server-context.cpp, update_slots (do_checkpoint).
    """
    return any(isinstance(cache, WindowKV) and not context.swa_full for layer in layers for cache in layer)


def _kv_bytes(caches: Sequence[FullKV], context: ContextParams, n_cells: int, cell_ext_bytes: int) -> int:
    """One cache object of llama.cpp's: the cells of one sequence, which are in one stream."""
    n_stream = context.n_stream
    nbytes = 4 + 4 * n_stream  # how many streams, how many cells in each
    if n_cells == 0:
        return nbytes
    nbytes += n_cells * (_CELL + cell_ext_bytes) + 4 + 4  # transposed or not, how many layers
    for cache in caches:
        nbytes += _ROW + n_cells * row_bytes(context.type_k, cache.n_embd_k_gqa)
        if not cache.n_embd_v_gqa:
            continue
        if not context.v_trans:
            nbytes += _ROW + n_cells * row_bytes(context.type_v, cache.n_embd_v_gqa)
        else:
            nbytes += _ROW_TRANSPOSED + n_cells * cache.n_embd_v_gqa * SIZES[context.type_v].type_size
    return nbytes
