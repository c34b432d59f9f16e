"""What is measured, and in which order? A job is a graph of nodes of one sort; its seconds are those of one node.

Jobs know neither llama.cpp nor a clock: whoever runs them gives back seconds (`bench.calibrate.ggml` does, tests do).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES

COLUMNS: Final = (1, 2, 4, 8, 32, 512)
N_IN: Final = (512, 4096)  # lengths of rows: their difference tells a row's cost from a weight's
HEAD_SIZES: Final = (64, 128, 256)
CELLS: Final = (512, 1536)
FAR_CELLS: Final = 4096
FAR_BYTES: Final = 64 << 20  # of caches that no cache of the processor holds
ROW: Final = 2048  # elements of a row of activations
ROWS: Final = 256
SMALL_BYTES: Final = 1 << 19  # of weights that stay in a core's own cache
MANY_COLUMNS: Final = 32  # from here on a weight is used so often that fetching it does not count
TWO_LENGTHS: Final = (1, 2, 8, 512)  # columns for which both lengths of rows are measured
LARGE_MATRIX: Final = 4 << 20  # weights
SMALL_MATRIX: Final = 1 << 20

TYPES: Final = (
    GGMLType.Q4_K, GGMLType.Q6_K, GGMLType.Q8_0, GGMLType.Q4_0, GGMLType.Q5_0, GGMLType.Q4_1, GGMLType.Q5_K,
    GGMLType.F16, GGMLType.F32, GGMLType.BF16, GGMLType.Q3_K, GGMLType.Q2_K, GGMLType.Q5_1, GGMLType.IQ4_NL,
    GGMLType.IQ4_XS, GGMLType.MXFP4,
)  # fmt: skip
CACHE_TYPES: Final = (GGMLType.F16, GGMLType.Q8_0)
OPERATIONS: Final = (
    "ADD", "MUL", "RMS_NORM", "NORM", "ROPE", "GLU", "GLU geglu", "UNARY", "SOFT_MAX", "CPY", "SET_ROWS", "GET_ROWS",
    "SCALE", "CONCAT", "SSM_CONV", "SSM_SCAN",
)  # fmt: skip
STREAMS: Final = (1 << 18, 1 << 20, 1 << 22, 1 << 23, 1 << 24, 1 << 25, 1 << 26, 1 << 27)
STREAM_N_IN: Final = 1024
N_LAYERS: Final = (2, 26)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """`n_columns` activations times matrices of `n_in` by `n_out`, as many as take `nbytes` together."""

    n_threads: int
    ggml_type: GGMLType
    repacked: bool
    n_in: int
    n_out: int
    n_columns: int
    n_matrices: int

    @property
    def nbytes(self) -> int:
        """Of all matrices."""
        size = SIZES[self.ggml_type]
        return self.n_matrices * self.n_in * self.n_out * size.type_size // size.block_size

    @property
    def is_cached(self) -> bool:
        """Do a core's own caches hold all matrices?"""
        return self.n_columns == 1 and self.nbytes <= 2 * SMALL_BYTES

    @property
    def is_stream(self) -> bool:
        """Is it one of those that tell how fast bytes come?"""
        return self.n_in == STREAM_N_IN


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """`n_tokens` tokens of `n_head` heads look at `n_cells` cells, all of them visible."""

    n_threads: int
    type_kv: GGMLType
    head_size: int
    n_head: int
    n_head_kv: int
    n_cells: int
    n_tokens: int
    n_layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation on `n_rows` rows of `n_row` elements."""

    n_threads: int
    op: str
    n_row: int
    n_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """Nodes with next to nothing to do."""

    n_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A decode step of a model of `n_layers` tiny layers."""

    n_threads: int
    n_layers: int


Job = Product | Attention | Operation | Nodes | Step


def products(n_threads: Sequence[int], ggml_type: GGMLType, *, repacked: bool, large_bytes: int) -> Iterator[Product]:
    """All products of a type: weights from main memory for few columns, from a core's cache for one, many columns."""
    size = SIZES[ggml_type]
    weight_bytes = size.type_size / size.block_size

    def product(threads: int, n_in: int, n_columns: int, n_weights: int, matrix: int) -> Product:
        n_out = max(64, matrix // n_in // 64 * 64)
        return Product(
            n_threads=threads, ggml_type=ggml_type, repacked=repacked, n_in=n_in, n_out=n_out, n_columns=n_columns,
            n_matrices=max(1, round(n_weights / (n_in * n_out))),
        )  # fmt: skip

    short, long = N_IN
    n_large, n_small = round(large_bytes / weight_bytes), round(SMALL_BYTES / weight_bytes)
    for threads in n_threads:
        for n_columns in COLUMNS:
            if n_columns < MANY_COLUMNS:
                yield product(threads, long, n_columns, max(LARGE_MATRIX, n_large // n_columns), LARGE_MATRIX)
            else:
                yield product(threads, long, n_columns, SMALL_MATRIX, SMALL_MATRIX)
            if n_columns in TWO_LENGTHS:
                small = n_small if n_columns < MANY_COLUMNS else SMALL_MATRIX
                yield product(threads, short, n_columns, small, small)
        yield product(threads, long, 1, n_small, n_small)


def streams(n_threads: Sequence[int], sizes: Sequence[int] = STREAMS) -> Iterator[Product]:
    """F32 products, whose arithmetic is least, of more and more weights: how fast they come from where they lie."""
    for threads in n_threads:
        for nbytes in sizes:
            n_out = max(16, min(1024, nbytes // 4 // STREAM_N_IN))
            yield Product(
                n_threads=threads, ggml_type=GGMLType.F32, repacked=False, n_in=STREAM_N_IN, n_out=n_out, n_columns=1,
                n_matrices=max(1, nbytes // (4 * STREAM_N_IN * n_out)),
            )  # fmt: skip


def attentions(n_threads: Sequence[int], types: Sequence[GGMLType] = CACHE_TYPES) -> Iterator[Attention]:
    """Decode with caches that a core's own cache holds, and with caches that none does; prompts."""
    for threads in n_threads:
        for type_kv in types:
            for head_size in HEAD_SIZES:
                base = Attention(
                    n_threads=threads, type_kv=type_kv, head_size=head_size, n_head=4, n_head_kv=2, n_cells=CELLS[0],
                    n_tokens=1, n_layers=1,
                )  # fmt: skip
                yield base
                yield replace(base, n_cells=CELLS[1])
                yield replace(base, n_cells=FAR_CELLS, n_layers=FAR_BYTES // (8 * head_size * FAR_CELLS))
                yield replace(base, n_cells=256, n_tokens=128, n_layers=2)


def operations(n_threads: Sequence[int], ops: Sequence[str] = OPERATIONS) -> Iterator[Operation]:
    """Each operation on one row and on many."""
    for threads in n_threads:
        for op in ops:
            yield Operation(n_threads=threads, op=op, n_row=ROW, n_rows=1)
            yield Operation(n_threads=threads, op=op, n_row=ROW, n_rows=ROWS)
