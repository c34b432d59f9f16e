"""What is measured, and in which order? A job is a graph of nodes of one sort; its seconds are those of one node.

Jobs know neither llama.cpp nor a clock: whoever runs them gives back seconds (`bench.calibrate.child` does, tests do).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import ceil, floor
from typing import Final, Literal

from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.speed.nodes import BY_FOUR, CACHE_LINE, GEMM_COLUMNS, Weight, reads_by_four
from ggufphys.speed.rates import Sort

COLUMNS: Final = (1, 2, 4, 8, 32, 512)
FEWER_COLUMNS: Final = (1, 4, 8, 32, 512)  # of rare types
REPACKED_COLUMNS: Final = (1, 4, 32, 512)  # of repacked kernels, for which two are one and one, and eight twice four
SHORT, MIDDLE, PAGE, LONG = 512, 1024, 2048, 4096
"""Weights a row: short; between; such that pages still hold two or nearly; long."""
LONGER: Final = (8192, 12288, 20480)
"""Rows so long that a column's elements are on their way from one row to the next: on a Zen 4 weights then come from
main memory up to twice as slowly, Q6_K in 40 ps each in rows of 4,096, in 75 of 12,288; the same from a cache don't."""
CACHED: Final = (SHORT, PAGE)  # of products with weights in a cache
HEAD_SIZES: Final = (64, 128, 256, 512)
CELLS: Final = (256, 3072)  # with one head in a cell; a core's own cache holds them, and fewer of more heads
N_HEAD_KV: Final = (1, 2, 4, 8)  # one head's cells lie beside each other
FAR_CELLS: Final = 4096
LARGE: Final = 128 << 20
"""Bytes that no cache of a processor holds, if the system tells of none that large: on two threads of a Zen 5 with 32
MiB of cache, 64 MiB that are read again and again come a fifth faster than 128 MiB."""
ROW: Final = 2048  # elements of a row of activations
ROWS: Final = 512  # as llama.cpp's physical batches have: no core's own cache holds them
SMALL_BYTES: Final = 1 << 19  # of weights that stay in a core's own cache
ROW_BYTES: Final = (480, 512)
"""Of rows measured with such columns: the longest up to the one, and the shortest from the other on. Four of them are
less than 2 KiB, and as much or more, from where on a Zen 4 fetches each row anew: Q5_0 with four columns takes 0.13 ns
a weight in rows of 484 bytes, 0.21 in rows of 528; F16 0.19 in rows of 448, 0.36 in rows of 512."""
CONVERTED_ROWS: Final = 16  # of a product that is little more than the conversion of its columns
MANY_COLUMNS: Final = 32  # from here on a weight is used so often that fetching it does not count
MATRIX: Final = 4 << 20  # weights of one that comes from main memory
BEGUN_ROWS: Final = 512  # of one so small that beginning to fetch it counts: eight chunks of any kernel
REUSED_ROWS: Final = {SHORT: 1024, PAGE: 512}  # of one that many columns use; with fewer, converting these would count
MASKED_CELLS: Final = 4096

TYPES: Final = (
    GGMLType.Q4_K, GGMLType.Q6_K, GGMLType.Q8_0, GGMLType.Q4_0, GGMLType.Q5_0, GGMLType.Q4_1, GGMLType.Q5_K,
    GGMLType.F16, GGMLType.F32, GGMLType.BF16, GGMLType.Q3_K, GGMLType.Q2_K, GGMLType.Q5_1, GGMLType.IQ4_NL,
    GGMLType.IQ4_XS, GGMLType.MXFP4,
)  # fmt: skip
RARE_TYPES: Final = (
    GGMLType.IQ3_S, GGMLType.IQ3_XXS, GGMLType.IQ2_S, GGMLType.IQ2_XS, GGMLType.IQ2_XXS, GGMLType.TQ2_0,
    GGMLType.TQ1_0, GGMLType.NVFP4, GGMLType.Q1_0, GGMLType.IQ1_S, GGMLType.IQ1_M,
)  # fmt: skip
"""Measured with fewer shapes, once, and behind all else: what few files have costs the others no repetition."""
CACHE_TYPES: Final = (GGMLType.F16, GGMLType.Q8_0)
OPERATIONS: Final = (
    "ADD", "MUL", "MUL by row", "RMS_NORM", "NORM", "ROPE", "GLU", "GLU geglu", "GLU swiglu_oai", "UNARY", "UNARY gelu",
    "UNARY gelu_erf", "UNARY tanh", "UNARY sigmoid", "UNARY softplus", "UNARY exp", "SOFT_MAX", "CPY", "SET_ROWS",
    "GET_ROWS", "SCALE", "CONCAT", "CONCAT transposed", "SSM_CONV", "L2_NORM", "SUM_ROWS", "ARGSORT",
)  # fmt: skip
SCANS: Final = ("SSM_SCAN", "GATED_DELTA_NET", "GATED_LINEAR_ATTN", "RWKV_WKV6", "RWKV_WKV7")
SCANNED: Final = 32  # tokens: scans take one after the other, however many there are
SORTED: Final = 128  # elements of a row that is sorted, as many as there are experts
STREAMS: Final = (1 << 18, 1 << 20, 1 << 22, 1 << 23, 12 << 20, 1 << 24, 24 << 20, 1 << 25, 1 << 26)
STREAM_ROWS: Final = {False: (GGMLType.F32, 1024), True: (GGMLType.F16, 512)}
"""Type and length of their rows: of those read one by one arithmetic takes least; four at once are 2 KiB together."""
N_LAYERS: Final = (2, 26)


Place = Literal["cache", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """`n_columns` activations times a matrix of `n_in` by `n_out` that a core's own cache holds or main memory.

    For many columns a matrix is the same again and again: fetching it does not count. `shifted`: it begins within a
    cache line.
    """

    n_threads: int
    ggml_type: GGMLType
    repacked: bool
    n_in: int
    n_out: int
    n_columns: int
    place: Place
    shifted: bool = False

    @property
    def shift(self) -> int:
        """Bytes to where it begins: whole blocks, which end half a cache line behind one."""
        block = SIZES[self.ggml_type].type_size
        return next(n for n in count(block, block) if n % CACHE_LINE == CACHE_LINE // 2) if self.shifted else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Products of so many bytes of weights: how fast they come from where they lie, row by row or `by_four`."""

    n_threads: int
    nbytes: int
    by_four: bool = False

    @property
    def n_columns(self) -> int:
        """Two make a kernel take four rows at once."""
        return 2 if self.by_four else 1

    @property
    def n_out(self) -> int:
        """Rows of one matrix."""
        return max(16, min(1024, self.nbytes // self._row_bytes))

    @property
    def n_matrices(self) -> int:
        """How many there are."""
        return max(1, self.nbytes // (self._row_bytes * self.n_out))

    @property
    def _row_bytes(self) -> int:
        ggml_type, n_in = STREAM_ROWS[self.by_four]
        return n_in * SIZES[ggml_type].type_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """`n_tokens` tokens of `n_head` heads look at `n_cells` cells, all of them visible, or but one `masked`."""

    n_threads: int
    type_kv: GGMLType
    head_size: int
    n_head: int
    n_head_kv: int
    n_cells: int
    n_tokens: int
    n_layers: int
    masked: bool = False

    @property
    def nbytes(self) -> int:
        """Of all layers' keys and values."""
        size = SIZES[self.type_kv]
        n_elements = 2 * self.n_layers * self.head_size * self.n_head_kv * self.n_cells
        return n_elements // size.block_size * size.type_size


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


Job = Product | Stream | Attention | Operation | Nodes | Step


def sort_of(job: Job) -> Sort:
    """Which jobs are slowed alike when a core is."""
    match job:
        case Product():
            return "products" if job.place == "cache" else "products from memory"
        case Stream():
            return "streams"
        case Attention():
            return "attention"
    return "others"


def products(n_threads: Sequence[int], ggml_type: GGMLType, *, repacked: bool) -> Iterator[Product]:
    """All products of a type: weights from main memory for few columns, from a core's cache on one thread; many."""
    is_rare = ggml_type in RARE_TYPES
    columns = REPACKED_COLUMNS if repacked else FEWER_COLUMNS if is_rare else COLUMNS
    size = SIZES[ggml_type]
    small = SMALL_BYTES * size.block_size // size.type_size

    def product(threads: int, n_in: int, n_columns: int, n_rows: int, place: Place) -> Product:
        return Product(
            n_threads=threads, ggml_type=ggml_type, repacked=repacked, n_in=n_in, n_out=max(64, n_rows // 64 * 64),
            n_columns=n_columns, place=place,
        )  # fmt: skip

    for threads in n_threads:
        for n_columns in columns:
            if n_columns >= MANY_COLUMNS:
                for n_in, n_rows in REUSED_ROWS.items():
                    yield product(threads, n_in, n_columns, n_rows, "cache")
                continue
            for n_in in lengths(ggml_type, n_columns, repacked=repacked):
                yield product(threads, n_in, n_columns, MATRIX // n_in, "memory")
            if ggml_type.name in BY_FOUR and not repacked:
                yield replace(product(threads, PAGE, n_columns, MATRIX // PAGE - 1, "memory"), shifted=True)
            if n_columns == 1 and not is_rare:
                yield product(threads, SHORT, n_columns, BEGUN_ROWS, "memory")
            if threads == n_threads[0]:
                for n_in in CACHED:
                    yield product(threads, n_in, n_columns, small // n_in, "cache")
                if n_columns == 1 or (repacked and n_columns == GEMM_COLUMNS):
                    yield replace(product(threads, PAGE, n_columns, 0, "cache"), n_out=CONVERTED_ROWS)


def lengths(ggml_type: GGMLType, n_columns: int, *, repacked: bool) -> tuple[int, ...]:
    """Of rows from main memory that are measured, in weights.

    With several columns what a row takes lies above the line from the shortest to a page's, so one between is measured.
    """
    if ggml_type in RARE_TYPES:
        return (LONG, LONGER[1]) if n_columns == 1 else (LONG,)
    if not reads_by_four(Weight(ggml_type, repacked), n_columns):
        short = (SHORT,) if n_columns == 1 else (SHORT, MIDDLE)
        if repacked:  # eight rows lie side by side: longer ones come as fast
            return *short, PAGE, LONG
        return *short, PAGE, LONG, *(LONGER if n_columns == 1 else LONGER[1:2])
    size = SIZES[ggml_type]
    step = max(32, size.block_size)
    fewer, more = (nbytes * size.block_size / size.type_size / step for nbytes in ROW_BYTES)
    return floor(fewer) * step, ceil(more) * step, MIDDLE, PAGE, LONG


def streams(n_threads: Sequence[int], large: int = LARGE) -> Iterator[Stream]:
    """More and more weights, up to as many bytes as no cache holds."""
    sizes = [*(nbytes for nbytes in STREAMS if nbytes < large), large]
    for threads in n_threads:
        for nbytes in sizes:
            yield Stream(n_threads=threads, nbytes=nbytes)
        for nbytes in sizes[1:]:
            yield Stream(n_threads=threads, nbytes=nbytes, by_four=True)


def attentions(
    n_threads: Sequence[int], types: Sequence[GGMLType] = CACHE_TYPES, large: int = LARGE
) -> Iterator[Attention]:
    """Decode with caches that a core's own cache holds, on one thread, and with `large` ones that none does; prompts.

    What a masked cell takes is the same whatever is in it.
    """
    for threads in n_threads:
        for type_kv in types:
            for head_size in HEAD_SIZES:
                for n_head_kv in (heads := N_HEAD_KV if type_kv is GGMLType.F16 else N_HEAD_KV[1:2]):
                    base = Attention(
                        n_threads=threads, type_kv=type_kv, head_size=head_size, n_head=2 * n_head_kv,
                        n_head_kv=n_head_kv, n_cells=0, n_tokens=1, n_layers=1,
                    )  # fmt: skip
                    if threads == n_threads[0]:
                        yield from (replace(base, n_cells=n * N_HEAD_KV[0] // n_head_kv) for n in CELLS)
                        if (head_size, n_head_kv) == (HEAD_SIZES[0], heads[0]):
                            yield replace(base, n_cells=MASKED_CELLS, masked=True)
                    layer = replace(base, n_cells=FAR_CELLS)
                    yield replace(layer, n_layers=ceil(large / layer.nbytes))
                    yield replace(base, n_cells=256, n_tokens=128, n_layers=2)


def operations(n_threads: Sequence[int]) -> Iterator[Operation]:
    """Each operation on one row and on many."""
    for threads in n_threads:
        for op in (*OPERATIONS, *SCANS):
            n_row = SORTED if op == "ARGSORT" else ROW
            yield Operation(n_threads=threads, op=op, n_row=n_row, n_rows=1)
            yield Operation(n_threads=threads, op=op, n_row=n_row, n_rows=SCANNED if op in SCANS else ROWS)
