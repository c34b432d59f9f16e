"""What can a layer keep from token to token, and how many bytes is it?

A cache is some tensors, each so many rows of so many elements of one type. Attention keeps rows for every position:
`n_cells` of them in each of `n_stream` copies, one a sequence unless the cache is unified. Recurrent layers keep one
row for a whole sequence, however long.

Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, llama_kv_cache ctor; src/llama-kv-cache-iswa.cpp;
src/llama-memory-recurrent.cpp, llama_memory_recurrent ctor; src/llama-kv-cache-dsv4.cpp.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from ggufphys.context import ContextParams, pad_ctx
from ggufphys.frozen import dataclass
from ggufphys.gguf.ggml_types import SIZES, GGMLType

KV: Final = "KV cache"
LATENT: Final = "compressed KV cache"  # MLA: keys alone, values are computed from them
INDEXER: Final = "indexer keys"
IDLE_INDEXER: Final = "indexer keys, not used"
INDEXER_VALUES: Final = "indexer keys and values"


@dataclass(frozen=True, slots=True)
class CacheTensor:
    """A tensor of a cache: `n_rows` rows of `width` elements."""

    name: str
    ggml_type: GGMLType
    width: int
    n_rows: int

    @property
    def nbytes(self) -> int:
        """Bytes of its data, without padding."""
        return self.n_rows * row_bytes(self.ggml_type, self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class FullKV:
    """Keys and values of every position: `n_embd_k_gqa` and `n_embd_v_gqa` are the widths of a cell's rows.

    A width of 0 is no tensor. Without flash attention V is stored transposed, and every layer's rows are as wide as the
    widest layer's: `n_embd_v_max`, where that is not its own width. `per_sequence` caches have a stream for each
    sequence even when the context is unified.
    """

    n_embd_k_gqa: int
    n_embd_v_gqa: int
    n_embd_v_max: int | None = None
    kind: str = KV
    per_sequence: bool = False

    def n_cells(self, context: ContextParams) -> int:
        """Cells in a stream: the whole context of a sequence."""
        return context.n_ctx_seq

    def n_stream(self, context: ContextParams) -> int:
        """Copies of the cache."""
        return context.n_seq_max if self.per_sequence else context.n_stream

    def v_width(self, context: ContextParams) -> int:
        """The width of V's rows as stored."""
        return self.n_embd_v_max if context.v_trans and self.n_embd_v_max is not None else self.n_embd_v_gqa

    def tensors(self, context: ContextParams) -> Iterator[CacheTensor]:
        """K and V, as far as they are kept."""
        n_rows = self.n_stream(context) * self.n_cells(context)
        for name, ggml_type, width in (
            ("K", context.type_k, self.n_embd_k_gqa),
            ("V", context.type_v, self.v_width(context)),
        ):
            if width:
                yield CacheTensor(name, ggml_type, width, n_rows)

    def title(self) -> str:
        """What a report calls it."""
        return self.kind

    def layout(self, context: ContextParams) -> str:
        """The tensors as a product of cells and rows."""
        rows = _rows(self.tensors(context))
        return f"{self.n_stream(context)} streams x {self.n_cells(context):,} cells x ({rows})"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexerF32(FullKV):
    """Keys of an indexer in F32, whatever the cache's types are."""

    def tensors(self, context: ContextParams) -> Iterator[CacheTensor]:
        """The keys."""
        yield CacheTensor(
            "K", GGMLType.F32, self.n_embd_k_gqa, self.n_stream(context) * self.n_cells(context)
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowKV(FullKV):
    """Keys and values of the last `n_swa` positions, with room for the batch that is being written.

    A `chunked` window does not move with the token: it begins at a multiple of `n_swa`.
    """

    n_swa: int
    chunked: bool = False

    def n_cells(self, context: ContextParams) -> int:
        """`pad256(min(n_ctx_seq, n_swa * (unified ? n_seq_max : 1) + n_ubatch))`, or all with swa_full."""
        if context.swa_full:
            return context.n_ctx_seq
        windows = self.n_swa * (context.n_seq_max if context.kv_unified and not self.per_sequence else 1)
        return pad_ctx(min(context.n_ctx_seq, windows + context.n_ubatch))

    def title(self) -> str:
        """What a report calls it."""
        return f"{self.kind}, window of {self.n_swa:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockKV(FullKV):
    """One row for each `ratio` positions, compressed from them."""

    ratio: int

    def n_cells(self, context: ContextParams) -> int:
        """`pad256(n_ctx_seq / ratio)`, rounded up."""
        return pad_ctx(max(1, -(-context.n_ctx_seq // self.ratio)))

    def title(self) -> str:
        """What a report calls it."""
        return f"{self.kind}, blocks of {self.ratio}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentState:
    """What a recurrent layer knows of a sequence: the last inputs of its convolution (R) and its state (S), in F32.

    `n_embd_p` are the inputs of a second convolution, over n-gram embeddings. A context that can take back `n_rs_seq`
    drafted tokens keeps as many older states.
    """

    n_embd_r: int
    n_embd_s: int
    n_embd_p: int = 0
    kind: str = "recurrent state"

    def tensors(self, context: ContextParams) -> Iterator[CacheTensor]:
        """R, S and P, as far as they are kept."""
        for name, width in (("R", self.n_embd_r), ("S", self.n_embd_s), ("P", self.n_embd_p)):
            if width:
                yield CacheTensor(name, GGMLType.F32, width, _states(context))

    def title(self) -> str:
        """What a report calls it."""
        return self.kind

    def layout(self, context: ContextParams) -> str:
        """The tensors as a product of states and rows."""
        return f"{_states(context)} states x ({_rows(self.tensors(context))})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockState:
    """The positions of the block that is being compressed, keys and scores, for each sequence, in F32."""

    n_embd_state: int
    state_size: int
    ratio: int

    def tensors(self, context: ContextParams) -> Iterator[CacheTensor]:
        """Keys and scores."""
        for name in ("K", "score"):
            yield CacheTensor(name, GGMLType.F32, self.n_embd_state, self.state_size * _states(context))

    def title(self) -> str:
        """What a report calls it."""
        return f"state of the compressor of {self.ratio}"

    def layout(self, context: ContextParams) -> str:
        """The tensors as a product of states and rows."""
        return f"{_states(context)} states x {self.state_size} positions x ({_rows(self.tensors(context))})"


LayerCache = FullKV | WindowKV | BlockKV | RecurrentState | BlockState
KVCache = FullKV | WindowKV | BlockKV


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


def row_stride(ggml_type: GGMLType, n_elements: int) -> int:
    """Bytes from one head to the next within a row, rounded down as ggml does for heads that are not whole blocks."""
    size = SIZES[ggml_type]
    return n_elements * size.type_size // size.block_size


def _states(context: ContextParams) -> int:
    return context.n_seq_max * (1 + context.n_rs_seq)


def _rows(tensors: Iterable[CacheTensor]) -> str:
    return " + ".join(
        f"{t.name} {t.width} {t.ggml_type.name.lower()} = {row_bytes(t.ggml_type, t.width):,} B" for t in tensors
    )
