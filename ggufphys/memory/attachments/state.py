"""How many bytes is one sequence's saved state? What llama-server keeps of prompts, in its cache and as checkpoints.

A state holds the cells of the sequence that attention can still see, layer by layer, each behind its type and row size,
and recurrent layers' one row. A *partial* state leaves out what can be rolled back without it: caches of the whole
context, where the model keeps something else too.

Source: llama.cpp 0c1e570 src/llama-context.cpp, state_seq_get_data; src/llama-kv-cache.cpp, state_write,
state_write_meta, state_write_data; src/llama-memory-recurrent.cpp and src/llama-kv-cache-dsv4.cpp, the same;
state_write of src/llama-kv-cache-iswa.cpp, -dsa.cpp, -dsa-iswa.cpp, -msa.cpp, src/llama-memory-hybrid.cpp, -idx.cpp.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ggufphys.arch import BlockKV, BlockState, FullKV, LayerCache, RecurrentState, WindowKV, row_bytes
from ggufphys.arch.adjust import has_several_positions
from ggufphys.arch.caches import IDLE_INDEXER, INDEXER, INDEXER_VALUES, CacheTensor
from ggufphys.context import ContextParams
from ggufphys.gguf import SIZES, GGMLType, GGUFFile

_HEADER: Final = 4 + 4  # magic, sequence
_CELL: Final = 4 + 4 + 4  # position, number of sequences, the sequence
CELL_EXT: Final = 4 + 4 + 4  # of models with positions in two dimensions: both, and the token
_ROW: Final = 4 + 8  # type, bytes of a row
_ROW_TRANSPOSED: Final = 4 + 4 + 4  # type, bytes of an element, elements in a row
_STATE: Final = 4 + 4  # a recurrent state's position and number of sequences
_BLOCKS_HEADER: Final = 4 + 4 + 4  # magic, version, whole or partial
_BLOCKS: Final = 4 + 4 + 4 + 4  # version, rows, streams, layers
_BLOCK_STATES: Final = 4 + 4 + 4 + 4 + 4 + 4  # version, ratio, positions, elements, streams, layers
_BLOCKS_LAYER: Final = 4  # its number
_BLOCKS_TENSOR: Final = 4 + 8 + 8 + 8  # type, elements in a row, rows, bytes of a row
_N_KINDS_OF_BLOCKS: Final = 3  # fine, coarse, the indexer's
_INDEXERS: Final = frozenset({INDEXER, IDLE_INDEXER, INDEXER_VALUES})  # in a cache of their own


def state_bytes(
    layers: Iterable[Sequence[LayerCache]],
    context: ContextParams,
    n_tokens: int,
    *,
    partial: bool,
    cell_ext_bytes: int = 0,
) -> int:
    """Bytes of a sequence's state after `n_tokens`, as llama_state_seq_get_size_ext gives them.

    `layers` are the caches of each layer (`ArchRule.layers`); `partial` as LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY.
    """
    caches = [cache for layer in layers for cache in layer]
    windows = [cache for cache in caches if isinstance(cache, WindowKV)]
    blocks = [cache for cache in caches if isinstance(cache, BlockKV)]
    states = [cache for cache in caches if isinstance(cache, RecurrentState)]
    block_states = [cache for cache in caches if isinstance(cache, BlockState)]
    whole = [cache for cache in caches if isinstance(cache, FullKV) and not isinstance(cache, WindowKV | BlockKV)]
    indexers = [cache for cache in whole if cache.kind in _INDEXERS]
    attended = [cache for cache in whole if cache.kind not in _INDEXERS]
    n_stream = windows[0].n_stream(context) if windows else context.n_stream
    n_cells = min(n_tokens, context.n_ctx_seq)
    nbytes = _HEADER
    if not (partial and (windows or states or block_states)):
        if attended or windows or not states:
            nbytes += _kv_bytes(attended, context, n_stream, n_cells, cell_ext_bytes)
        if indexers:
            nbytes += _kv_bytes(indexers, context, n_stream, n_cells, cell_ext_bytes)
        if block_states:
            nbytes += _N_KINDS_OF_BLOCKS * _BLOCKS + sum(_block_rows_bytes(c, context, n_tokens) for c in blocks)
    if windows:
        n_seen = min(n_cells, max(cache.n_swa for cache in windows))
        nbytes += _kv_bytes(windows, context, n_stream, n_seen, cell_ext_bytes)
    if states:
        nbytes += _recurrent_bytes(states, n_tokens)
    if block_states:
        nbytes += _BLOCKS_HEADER + _N_KINDS_OF_BLOCKS * _BLOCK_STATES + sum(map(_block_state_bytes, block_states))
    return nbytes


def cell_ext_bytes(gguf: GGUFFile) -> int:
    """What a cell keeps more where positions have two dimensions (M-RoPE)."""
    return CELL_EXT if has_several_positions(gguf) else 0


def needs_checkpoints(layers: Iterable[Sequence[LayerCache]], context: ContextParams) -> bool:
    """Can a sequence not be rolled back to any of its earlier positions? Then llama-server keeps checkpoints.

    Source: llama.cpp 0c1e570 tools/server/server-context.cpp, update_slots (do_checkpoint); common/common.cpp,
    common_context_can_seq_rm; src/llama-memory-recurrent.cpp and src/llama-kv-cache-dsv4.cpp, seq_rm.
    """
    caches = [cache for layer in layers for cache in layer]
    if any(isinstance(cache, RecurrentState | BlockState) for cache in caches):
        return True
    return not context.swa_full and any(isinstance(cache, WindowKV) for cache in caches)


def _kv_bytes(
    caches: Sequence[FullKV], context: ContextParams, n_stream: int, n_cells: int, cell_ext_bytes: int
) -> int:
    """One cache object of llama.cpp's: the cells of one sequence, which are in one stream."""
    nbytes = 4 + 4 * n_stream  # how many streams, how many cells in each
    if n_cells == 0:
        return nbytes
    nbytes += n_cells * (_CELL + cell_ext_bytes) + 4 + 4  # transposed or not, how many layers
    for cache in caches:
        nbytes += sum(_ROW + n_cells * row_bytes(t.ggml_type, t.width) for t in _keys(cache, context))
        if not cache.n_embd_v_gqa:
            continue
        if not context.v_trans:
            nbytes += _ROW + n_cells * row_bytes(context.type_v, cache.n_embd_v_gqa)
        else:
            nbytes += _ROW_TRANSPOSED + n_cells * cache.n_embd_v_gqa * SIZES[context.type_v].type_size
    return nbytes


def _keys(cache: FullKV, context: ContextParams) -> Iterator[CacheTensor]:
    return (tensor for tensor in cache.tensors(context) if tensor.name == "K")


def _recurrent_bytes(states: Sequence[RecurrentState], n_tokens: int) -> int:
    """The sequence's one row in each recurrent layer, once it has a token."""
    n_cells = min(n_tokens, 1)
    nbytes = 4 + n_cells * _STATE + 4 + 4  # how many cells; transposed or not, how many layers
    for state in states:
        for width in (state.n_embd_r, state.n_embd_s):  # both are there, however wide
            nbytes += _ROW + n_cells * row_bytes(GGMLType.F32, width)
        if state.n_embd_p:
            nbytes += 8 + n_cells * row_bytes(GGMLType.F32, state.n_embd_p)  # of the first one's type
    return nbytes


def _block_rows_bytes(cache: BlockKV, context: ContextParams, n_tokens: int) -> int:
    """The rows of whole blocks in one layer."""
    n_rows = min(n_tokens // cache.ratio, cache.n_cells(context))
    return _BLOCKS_LAYER + _BLOCKS_TENSOR + n_rows * row_bytes(context.type_k, cache.n_embd_k_gqa)


def _block_state_bytes(state: BlockState) -> int:
    """Keys and scores of the block that is being compressed."""
    rows = state.state_size * row_bytes(GGMLType.F32, state.n_embd_state)
    return _BLOCKS_LAYER + 2 * (_BLOCKS_TENSOR + rows)
