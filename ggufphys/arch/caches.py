"""What can a layer keep from token to token, and how many bytes is it?

Legend: `n_cells` positions kept in each stream; `n_stream` copies of the cache, one a sequence unless it is unified.
Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, llama_kv_cache ctor; src/llama-kv-cache-iswa.cpp.
"""

from dataclasses import dataclass

from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.params import ContextParams, pad_ctx


@dataclass(frozen=True, slots=True, kw_only=True)
class FullKV:
    """Keys and values of every position: `n_embd_k_gqa` and `n_embd_v_gqa` are the widths of a cell's rows."""

    n_embd_k_gqa: int
    n_embd_v_gqa: int

    def n_cells(self, context: ContextParams) -> int:
        """Cells in a stream: the whole context of a sequence."""
        return context.n_ctx_seq


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowKV(FullKV):
    """Keys and values of the last `n_swa` positions, with room for the batch that is being written."""

    n_swa: int

    def n_cells(self, context: ContextParams) -> int:
        """`pad256(min(n_ctx_seq, n_swa * (unified ? n_seq_max : 1) + n_ubatch))`, or all with swa_full."""
        if context.swa_full:
            return context.n_ctx_seq
        windows = self.n_swa * (context.n_seq_max if context.kv_unified else 1)
        return pad_ctx(min(context.n_ctx_seq, windows + context.n_ubatch))


LayerCache = FullKV | WindowKV


def row_bytes(ggml_type: GGMLType, n_elements: int) -> int:
    """Bytes of one row of `n_elements` weights.

    Raises:
        ValueError: the row is not whole blocks of the type, which llama.cpp refuses.
    """
    size = SIZES[ggml_type]
    if n_elements % size.block_size:
        raise ValueError(
            f"a cache row of {n_elements} elements is not whole blocks of {ggml_type.name.lower()} "
            f"({size.block_size} elements)"
        )
    return n_elements // size.block_size * size.type_size
