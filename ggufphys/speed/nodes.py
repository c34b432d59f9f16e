"""How long does one node of a graph take? Its work on a processor, and which resource that is.

With kernels measured, a product of `n_out` rows of `n_in` weights takes `n_out * (row_s + n_in * weight_s)`; without,
the larger of bytes over bandwidth and FLOPs over their rate. docs/speed.md derives it.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ggml-cpu.c, ggml_graph_compute_thread, ggml_cpu_try_fuse_ops,
ggml_compute_forward_mul_mat, ggml_compute_forward_mul_mat_id; repack.cpp, forward_mul_mat, forward_mul_mat_one_chunk,
forward_mul_mat_id (all four for how columns are converted, too); ops.cpp, ggml_compute_forward_flash_attn_ext_f16,
ggml_compute_forward_ssm_scan_f32, ggml_compute_forward_concat_f32; binary-ops.cpp, apply_binary_op;
llamafile/sgemm.cpp, llamafile_sgemm, mnpack.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from math import log2, prod
from typing import Final, Literal, NamedTuple

from ggufphys.frozen import dataclass
from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.graph.describing.cost import Cost, distinct_experts
from ggufphys.graph.ir import Tensor
from ggufphys.speed.rates import AttentionRate, Processor, ProductRate

Limit = Literal["compute", "bandwidth", "overhead"]
LIMITS: Final[tuple[Limit, ...]] = ("compute", "bandwidth", "overhead")
TILE: Final = 64  # GGML_FA_TILE_Q, GGML_FA_TILE_KV
SPLIT_CELLS: Final = 512  # from so many on a token's cells are divided between threads, not its heads
KV_PAD: Final = 256  # cells of a cache that are looked at: as many as are used, padded to that
GEMM_COLUMNS: Final = 4  # repacked kernels take columns by four, and what is left one by one
GEMM_MANY: Final = 16  # or by so many where there are as many: on x86, and on ARM those of Q4_0
CHUNKS: Final = 4  # that each of several threads divides its rows into
CHUNK_ROWS: Final = 64  # of kernels that are not repacked, for one column
HOT_BYTES: Final = 256 << 10  # activations that a core's own cache holds
BY_FOUR: Final = frozenset({"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "IQ4_NL"})
"""Types whose kernel takes four rows at once where there are two columns or more: on x86, for which it was measured."""
MEMORY_BOUND: Final = 0.8  # a product whose arithmetic takes less than this share of its time waits for memory
REPACKED: Final = " repacked"
ALIKE: Final = {"CONT": "CPY", "REPEAT": "CPY", "ADD_ID": "ADD", "SUB": "ADD", "DIV": "MUL"}
"""Operations that move and compute as much as one that is measured."""

CACHE_LINE: Final = 64  # bytes


class Weight(NamedTuple):
    """A weight's type, whether it is repacked, and whether it begins within a cache line (`shifted`).

    A GGUF file's tensors begin at multiples of 32 bytes, and a mapped file's lie in memory as in the file.
    """

    ggml_type: GGMLType
    repacked: bool
    shifted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a node's time depends on beside itself.

    Args:
        cold: the share of weights and cached values that come from main memory.
        cold_by_four: the same of weights that are read four rows at once.
        weights: what a weight's tensor is in the layers that it stands for, and the share of each.
        visible: how many cells all tokens of a batch see, by window (0: none), and how many are looked at by tiles.
    """

    cold: float
    cold_by_four: float
    weights: Callable[[Tensor], Sequence[tuple[Weight, float]]]
    visible: Callable[[Tensor, int, int], float]


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long, by the resource that limits it; `guessed` is the part for which nothing like it was measured."""

    compute: float = 0.0
    bandwidth: float = 0.0
    overhead: float = 0.0
    guessed: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.compute + self.bandwidth + self.overhead

    @property
    def limit(self) -> Limit:
        """What takes most of it."""
        return max(LIMITS, key=lambda name: float(getattr(self, name)))

    def plus(self, other: "Seconds", times: float = 1) -> "Seconds":
        """The sum of both, the other so many times."""
        return Seconds(
            self.compute + times * other.compute,
            self.bandwidth + times * other.bandwidth,
            self.overhead + times * other.overhead,
            self.guessed + times * other.guessed,
        )


def node_seconds(node: Tensor, cost: Cost, cpu: Processor, around: Surroundings) -> Seconds:
    """Seconds of one node whose cost is known; nothing for the product that a norm is computed with."""
    if _is_fused(node):
        return Seconds()
    match node.op:
        case "MUL_MAT" if cpu.products:
            return _mul_mat(node, cpu, around)
        case "MUL_MAT_ID" if cpu.products:
            return _mul_mat_id(node, cpu, around)
        case "FLASH_ATTN_EXT" if cpu.attention:
            return _flash_attn(node, cpu, around)
    if cpu.operations and node.op not in ("MUL_MAT", "MUL_MAT_ID", "FLASH_ATTN_EXT"):
        return _operation(node, cost, cpu, around)
    return _by_rates(cost, cpu, around)


def _is_fused(node: Tensor) -> bool:
    """Is it the product behind an RMS norm, which the norm computes on its way?"""
    if node.op != "MUL":
        return False
    norm = next((s for s in node.src if s.op == "RMS_NORM"), None)
    other = next((s for s in node.src if s is not norm), None)
    return norm is not None and other is not None and other.type is GGMLType.F32 and other.ne[0] == node.ne[0]


def _by_rates(cost: Cost, cpu: Processor, around: Surroundings) -> Seconds:
    """The larger of bytes over bandwidth and FLOPs over their rate."""
    slow, fast = 1 / cpu.bytes_per_s, 1 / cpu.streams[0][1]
    kept = cost.weight_bytes + cost.cache_bytes
    memory_s = kept * (around.cold * slow + (1 - around.cold) * fast) + cost.activation_bytes * fast
    compute_s = cost.flops / cpu.flops_per_s if cpu.flops_per_s else 0.0
    if memory_s > compute_s:
        return Seconds(bandwidth=memory_s, overhead=cpu.node_s)
    return Seconds(compute=compute_s, overhead=cpu.node_s)


# -- products


def _mul_mat(node: Tensor, cpu: Processor, around: Surroundings) -> Seconds:
    """Columns that share a matrix are multiplied together; a head of attention without flash attention is a matrix."""
    matrix = node.src[0]
    if matrix.ne[2] * matrix.ne[3] == 1:
        n_rows, n_columns = matrix.ne[1], prod(node.ne[1:])
    else:
        n_rows, n_columns = matrix.ne[1] * node.ne[2] * node.ne[3], node.ne[1]
    total = Seconds(overhead=2 * cpu.node_s)  # a second barrier stands behind the columns' conversion
    for weight, share in around.weights(matrix):
        hot, cold, known = _product(cpu, weight, matrix.ne[0], matrix.ne[1], n_columns)
        n = (
            _longest(n_rows, cpu.n_threads)
            if n_columns == 1 and n_rows == matrix.ne[1] and not weight.repacked
            else n_rows
        )
        first_s = _converting(cpu, weight, matrix.ne[0], prod(node.src[1].ne[1:]))
        begin_s = _rates_of(cpu, weight)[0][0].begin_s
        from_memory = around.cold_by_four if reads_by_four(weight, n_columns) else around.cold
        total = total.plus(_priced(first_s + n * hot, first_s + begin_s + n * cold, from_memory, known), share)
    return total


def reads_by_four(weight: Weight, n_columns: int) -> bool:
    """Are rows of it read four at once? Then they come from main memory sooner, and more slowly."""
    return n_columns > 1 and not weight.repacked and weight.ggml_type.name in BY_FOUR


def converted(weight: Weight, n_in: int, n_columns: int, n_threads: int) -> tuple[int, int]:
    """Elements of columns that are converted singly and by four, as if each thread had as many as the one with most.

    Columns of a kernel that is not repacked are divided by blocks; of a repacked one's, threads take four each in turn,
    and what is left one by one.
    """

    def longest(n: int) -> int:
        return -(-n // n_threads) * n_threads

    if not weight.repacked:
        block = SIZES[weight.ggml_type].block_size
        return n_columns * longest(-(-n_in // block)) * block, 0
    n_fours, n_singly = divmod(n_columns, GEMM_COLUMNS)
    return longest(n_singly) * n_in, GEMM_COLUMNS * longest(n_fours) * n_in


def _converting(cpu: Processor, weight: Weight, n_in: int, n_columns: int) -> float:
    """Seconds until columns are in the kernel's own type."""
    rates, _ = _rates_of(cpu, weight)
    singly, by_four = converted(weight, n_in, n_columns, max(1, cpu.n_threads))
    four_s = next((rate.converted_s for rate in rates if rate.n_columns == GEMM_COLUMNS), 0.0)
    return singly * rates[0].converted_s + by_four * four_s


def _longest(n_rows: int, n_threads: int) -> int:
    """Rows of one column as if each thread had as many as the one that has most: threads take them by chunks."""
    n_chunks = -(-n_rows // CHUNK_ROWS)
    if n_threads == 1 or n_chunks < 4 * n_threads:  # so few are divided evenly
        return n_rows
    return max(n_rows, n_threads * -(-n_chunks // n_threads) * -(-n_rows // n_chunks))


def _mul_mat_id(node: Tensor, cpu: Processor, around: Surroundings) -> Seconds:
    """Columns go one by one, whatever the batch; an expert's weights come from memory once, then from a cache."""
    matrix, ids = node.src[0], node.src[2]
    n_used, n_tokens = ids.ne[:2]
    n_distinct = distinct_experts(matrix.ne[2], n_used, n_tokens)
    total = Seconds(overhead=3 * cpu.node_s)
    for weight, share in around.weights(matrix):
        hot, cold, known = _product(cpu, weight, matrix.ne[0], matrix.ne[1], 1)
        n_rows = _longest(matrix.ne[1], cpu.n_threads) if n_tokens == 1 and not weight.repacked else matrix.ne[1]
        once = n_used * n_tokens * n_rows * hot + _converting(cpu, weight, matrix.ne[0], prod(node.src[1].ne[1:]))
        fetched = n_distinct * n_rows * max(0.0, cold - hot)
        total = total.plus(_priced(once, once + fetched, around.cold, known), share)
    return total


def _priced(hot_s: float, cold_s: float, cold: float, known: bool) -> Seconds:
    seconds = hot_s + cold * max(0.0, cold_s - hot_s)
    guessed = 0.0 if known else seconds
    if hot_s < MEMORY_BOUND * seconds:
        return Seconds(bandwidth=seconds, guessed=guessed)
    return Seconds(compute=seconds, guessed=guessed)


def _product(cpu: Processor, weight: Weight, n_in: int, n_out: int, n_columns: int) -> tuple[float, float, bool]:
    """Seconds a row with weights in a cache and in main memory, and whether the type was measured.

    Each go of a repacked kernel is through all of a thread's rows that it takes at once: behind the first, these come
    from as near as so many bytes stay.
    """
    rates, known = _rates_of(cpu, weight)
    row_bytes = n_in * SIZES[weight.ggml_type].bpw / 8
    within = weight.shifted or row_bytes % CACHE_LINE != 0  # of others, half of the rows or more do
    if not weight.repacked:
        return *_row(rates, n_in, n_columns, within=within), known
    hot = cold = 0.0
    taken = n_out * row_bytes / (CHUNKS if cpu.n_threads > 1 else 1)
    for i, n_together in enumerate(goes(n_columns)):
        alike = [rate for rate in rates if (rate.n_columns >= GEMM_MANY) == (n_together >= GEMM_MANY)] or rates
        go_hot, go_cold = _row(alike, n_in, n_together, within=within)
        hot += go_hot
        cold += go_hot + (cpu.cold_share(taken) if i else 1.0) * (go_cold - go_hot)
    return hot, cold, known


def goes(n_columns: int) -> Iterator[int]:
    """How many columns a repacked kernel takes with each go through its rows: four, and the rest one by one.

    Those that it takes by sixteen count as one go: it computes too long with them to wait for weights.
    """
    n_fewer = n_columns % GEMM_MANY
    if n_columns > n_fewer:
        yield n_columns - n_fewer
    n_fours, n_singly = divmod(n_fewer, GEMM_COLUMNS)
    yield from [GEMM_COLUMNS] * n_fours + [1] * n_singly


def _rates_of(cpu: Processor, weight: Weight) -> tuple[Sequence[ProductRate], bool]:
    """The kernel's rates, and whether they are its own: a type that was not measured has the nearest one's in bytes."""
    name = weight.ggml_type.name
    for key in (name + REPACKED, name) if weight.repacked else (name,):
        if key in cpu.products:
            return cpu.products[key], key.endswith(REPACKED) == weight.repacked
    bpw = SIZES[weight.ggml_type].bpw
    plain = {key: rates for key, rates in cpu.products.items() if not key.endswith(REPACKED)}
    nearest = min(plain or cpu.products, key=lambda key: (abs(_bpw(key) - bpw), key))
    return cpu.products[nearest], False


def _bpw(key: str) -> float:
    return SIZES[GGMLType[key.removesuffix(REPACKED)]].bpw


def _row(rates: Sequence[ProductRate], n_in: int, n_columns: int, *, within: bool = False) -> tuple[float, float]:
    """Seconds of a row, from a cache and from main memory; straight lines between the batches that were measured."""
    columns = [rate.n_columns for rate in rates]
    i = bisect_left(columns, n_columns)
    if i == len(rates) or i == 0:  # more than any, or fewer: in proportion
        rate = rates[min(i, len(rates) - 1)]
        hot, cold = rate.row(n_in, within=within)
        return hot * n_columns / rate.n_columns, cold * n_columns / rate.n_columns
    if columns[i] == n_columns:
        return rates[i].row(n_in, within=within)
    share = (n_columns - columns[i - 1]) / (columns[i] - columns[i - 1])
    (hot0, cold0), (hot1, cold1) = (rate.row(n_in, within=within) for rate in rates[i - 1 : i + 1])
    return hot0 + share * (hot1 - hot0), cold0 + share * (cold1 - cold0)


# -- attention


def _flash_attn(node: Tensor, cpu: Processor, around: Surroundings) -> Seconds:
    """A head of a token sees its cells; prompts go by tiles, of which those without a visible cell are left out."""
    q, k, v = node.src[:3]
    n_tokens, n_head = q.ne[1], q.ne[2]
    name = k.type.name if k.type.name in cpu.attention else next(iter(cpu.attention))
    known = name == k.type.name
    rate = _attention_rate(cpu.attention[name], (k.ne[0] + v.ne[0]) / 2, k.ne[2])
    is_tiled = n_tokens >= TILE and k.type in (GGMLType.F16, GGMLType.F32)
    cells = around.visible(node, n_tokens, TILE if is_tiled else 1) * q.ne[3]
    if is_tiled:
        each_s = cells * rate.tiled_cell_s
    else:
        seen, masked = _longest_cells(node, cells, cpu.n_threads)
        each_s = seen * rate.cell_s + masked * rate.masked_cell_s
    compute_s = n_head * (n_tokens * q.ne[3] * rate.head_s + each_s)
    most_cells = cells / n_tokens if not is_tiled else cells / max(1, n_tokens // TILE)
    far_s = around.cold * k.ne[2] * min(most_cells, k.ne[1] * k.ne[3]) * rate.far_cell_s
    seconds = compute_s + far_s
    total = Seconds(compute=seconds) if compute_s >= MEMORY_BOUND * seconds else Seconds(bandwidth=seconds)
    return total.plus(Seconds(overhead=2 * cpu.node_s, guessed=0.0 if known else seconds))


def _longest_cells(node: Tensor, cells: float, n_threads: int) -> tuple[float, float]:
    """Cells that are seen and stepped over, as if each thread had as many as the one that sees most.

    One token's many cells are divided between threads as they lie, those that are not used yet among them.
    """
    q, k, v = node.src[:3]
    n_cells = q.ne[1] * q.ne[3] * k.ne[1]
    is_split = q.ne[1] * q.ne[3] == 1 and k.ne[1] >= SPLIT_CELLS and k.type is v.type
    if n_threads > 1 and is_split and k.type in (GGMLType.F16, GGMLType.F32) and n_cells - cells < KV_PAD:
        n_cells = -(-n_cells // n_threads)
        seen = min(cells, n_cells)
        return n_threads * seen, n_threads * (n_cells - seen)
    return cells, max(0.0, n_cells - cells)


def _attention_rate(rates: Sequence[AttentionRate], head_size: float, n_head_kv: int) -> AttentionRate:
    """Between the head sizes and the numbers of heads that were measured: straight lines, of heads over doublings."""
    by_heads = [
        _between(*_neighbours([r for r in rates if r.n_head_kv == n], lambda r: r.head_size, head_size))
        for n in sorted({r.n_head_kv for r in rates})
    ]
    heads = min(max(n_head_kv, by_heads[0].n_head_kv), by_heads[-1].n_head_kv)
    return _between(*_neighbours(by_heads, lambda r: log2(r.n_head_kv), log2(heads)))


def _neighbours(
    rates: Sequence[AttentionRate], place: Callable[[AttentionRate], float], at: float
) -> tuple[AttentionRate, AttentionRate, float]:
    """The two next to a place, and how far between them it is; less than none and more than all of it beyond them."""
    if len(rates) == 1:
        return rates[0], rates[0], 0.0
    i = min(max(bisect_left(rates, at, key=place), 1), len(rates) - 1)
    a, b = rates[i - 1], rates[i]
    return a, b, (at - place(a)) / (place(b) - place(a))


def _between(a: AttentionRate, b: AttentionRate, share: float) -> AttentionRate:
    def between(name: str) -> float:
        x, y = float(getattr(a, name)), float(getattr(b, name))
        return max(x + share * (y - x), min(x, y) / 4)

    return AttentionRate(
        head_size=a.head_size,
        n_head_kv=a.n_head_kv,
        head_s=between("head_s"),
        cell_s=between("cell_s"),
        far_cell_s=between("far_cell_s"),
        tiled_cell_s=between("tiled_cell_s"),
        masked_cell_s=between("masked_cell_s"),
    )


# -- everything else


def _operation(node: Tensor, cost: Cost, cpu: Processor, around: Surroundings) -> Seconds:
    """So much an element: rows are shared by the threads. What it passes on stays in a cache, if it is not too much."""
    rate = cpu.operations.get(_measured_as(node)) or cpu.operations.get(ALIKE.get(node.op, node.op))
    known = rate is not None
    if rate is None:
        rate = cpu.operations.get("CPY") or next(iter(cpu.operations.values()))
    n_elements = _worked_on(node)
    if 4 * n_elements <= HOT_BYTES:
        seconds = n_elements * rate.row_s / max(1, min(_shared_rows(node), cpu.n_threads))
    else:
        seconds = n_elements * rate.rows_s
    kept = around.cold * (cost.cache_read_bytes + cost.weight_bytes)
    passed = cost.activation_bytes + cost.cache_written_bytes
    memory_s = (kept + cpu.cold_share(cost.total_bytes) * passed) / cpu.bytes_per_s
    guessed = 0.0 if known else max(seconds, memory_s)
    if memory_s > seconds:
        return Seconds(bandwidth=memory_s, overhead=cpu.node_s, guessed=guessed)
    return Seconds(compute=seconds, overhead=cpu.node_s, guessed=guessed)


def _measured_as(node: Tensor) -> str:
    """The name it is measured by: its kind counts, and whether ggml goes through an operand element by element."""
    match node.op:
        case "GLU" | "UNARY" if node.params:
            return f"{node.op} {node.params[0]}"
        case "ADD" | "SUB" | "MUL" | "DIV" if len(node.src) > 1 and node.src[1].ne[0] == 1 < node.ne[0]:
            return "MUL by row"  # the loop over what a row of the second operand has takes one turn
        case "CONCAT" if node.src[1].op == "TRANSPOSE" and node.src[1].ne[0] > 1:
            return "CONCAT transposed"  # neighbours are a row of the other operand apart; one token has none
    return ALIKE.get(node.op, node.op)


def _shared_rows(node: Tensor) -> int:
    """Into how many parts threads can divide it: rows, where an operation has no way of its own."""
    match node.op:
        case "SSM_SCAN":
            return node.src[1].ne[1]  # heads
        case "GATED_DELTA_NET":
            return node.src[2].ne[1] * node.src[2].ne[3]  # heads of all sequences
        case "GATED_LINEAR_ATTN" | "RWKV_WKV6" | "RWKV_WKV7":
            return node.src[0].ne[1]  # heads
        case "SSM_CONV":
            return node.ne[0]  # channels
        case "CONCAT":
            return node.ne[2]
    return prod(node.ne[1:])


SCANNED_STATES: Final = {
    "SSM_SCAN": 128, "GATED_DELTA_NET": 128, "GATED_LINEAR_ATTN": 64, "RWKV_WKV6": 64, "RWKV_WKV7": 64,
}  # fmt: skip
"""The length of the states that scans are measured with: an element of a token takes its whole length."""


def _worked_on(node: Tensor) -> float:
    """The elements that an operation's seconds count."""
    match node.op:
        case "SET_ROWS":
            return prod(node.src[0].ne)
        case "SSM_SCAN":
            return prod(node.src[1].ne) * node.src[0].ne[0] / SCANNED_STATES[node.op]
        case "GATED_DELTA_NET":
            return prod(node.src[2].ne) * node.src[2].ne[0] / SCANNED_STATES[node.op]
        case "GATED_LINEAR_ATTN" | "RWKV_WKV6" | "RWKV_WKV7":
            return prod(node.src[0].ne) * node.src[0].ne[0] / SCANNED_STATES[node.op]
        case "SOFT_MAX" | "SUM_ROWS" | "ARGSORT":
            return prod(node.src[0].ne)
    return prod(node.ne)
