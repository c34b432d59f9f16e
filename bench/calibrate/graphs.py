"""A job as one of ggml's graphs: tensors filled, nodes made, ready to be run again and again."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.calibrate.jobs import LONG, MANY_COLUMNS, MATRIX, STREAM_ROWS, Attention, Nodes, Operation, Product, Stream
from bench.calibrate.library import Tensors, weights
from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.speed.nodes import SCANNED_STATES

PART_BYTES: Final = 8 << 20  # of weights that one run of a graph reads
N_SAME: Final = 4  # products of one small matrix in a graph, but with hundreds of columns: starting it counts less
MOST_PRODUCTS: Final = 2048  # in the graphs of one job: there is room for so many
N_NODES: Final = 200
N_REPEATED: Final = 20  # nodes of an operation on one row
F32, F16, I32, I64 = GGMLType.F32, GGMLType.F16, GGMLType.I32, GGMLType.I64

Runnable = tuple[Callable[[], None], int]
"""Runs a graph; how many nodes it has."""


class ProductGraphs:
    """The products of one type, with matrices that take so many bytes together; made once, seen in any shape.

    `bytes_per_s` is how fast they were brought into place, repacked if they are.

    Weights lie where a model's do: in a mapped file, of which the page cache holds many pages side by side, or in
    memory of their own if they are repacked. What lies in pages here and there comes more slowly, since a core looks up
    where each of them is. Without a `folder` for the file they lie there, too.

    A graph goes through a part of them, the next run through the next part: when one comes again, all others have been
    read since.
    """

    def __init__(self, ggml_type: GGMLType, *, repacked: bool, nbytes: int, folder: Path | None = None) -> None:
        self.ggml_type, self.repacked = ggml_type, repacked
        matrix_bytes = MATRIX * SIZES[ggml_type].type_size // SIZES[ggml_type].block_size
        self._n_a_part = max(1, round(PART_BYTES / matrix_bytes))
        n = -(-nbytes // (matrix_bytes * self._n_a_part)) * self._n_a_part
        self._memory = Tensors()
        self._matrices = [self._memory.new(ggml_type, LONG, MATRIX // LONG) for _ in range(n)]
        data = np.resize(weights(ggml_type), matrix_bytes)
        started = time.perf_counter()
        self._file = None if folder is None or repacked else folder / f"{ggml_type.name}.weights"
        self._mapped: npt.NDArray[np.uint8] | None = None
        if self._file is None:
            self._memory.allocate(repacked=repacked)
            for matrix in self._matrices:
                self._memory.set(matrix, data)
        else:
            self._mapped = _mapped(self._file, data, n)
            self._memory.lie_in(self._mapped, self._matrices)
        self.bytes_per_s = n * matrix_bytes / (time.perf_counter() - started)
        self._n_runs = 0

    @contextmanager
    def graph(self, job: Product) -> Iterator[Runnable]:
        """The graph of a product."""
        is_far = job.place == "memory"
        n_same = N_SAME if job.n_columns <= MANY_COLUMNS else 1
        matrices = self._matrices if is_far else self._matrices[:1] * n_same
        n_in_each = max(1, min(MATRIX // (job.n_in * job.n_out), MOST_PRODUCTS // len(matrices))) if is_far else 1
        n_a_part = n_in_each * self._n_a_part if is_far else n_same
        with Tensors() as seen, Tensors() as tensors:
            b = tensors.new(F32, job.n_in, job.n_columns)
            nodes = []
            for matrix in matrices:
                for i in range(n_in_each):
                    shaped = seen.new(self.ggml_type, job.n_in, job.n_out)
                    seen.put(shaped, at=matrix, of=self._memory, behind=i, shift=job.shift)
                    nodes.append(tensors.call("mul_mat", shaped, b))
            tensors.allocate()
            tensors.set(b, np.random.default_rng(1).standard_normal(8192, dtype=np.float32))
            parts = [tensors.graph(nodes[i : i + n_a_part]) for i in range(0, len(nodes), n_a_part)]

            def run() -> None:
                self._n_runs += 1
                tensors.compute(parts[self._n_runs % len(parts)], job.n_threads)

            yield run, n_a_part

    def close(self) -> None:
        """Free the matrices; a file is gone before much of it is written to the disk."""
        self._memory.close()
        self._mapped = None
        if self._file is not None:
            self._file.unlink()


def _mapped(path: Path, data: npt.NDArray[np.uint8], n: int) -> npt.NDArray[np.uint8]:
    """A mapped file with the data so many times."""
    once = data.tobytes()
    with path.open("wb") as file:
        for _ in range(n):
            file.write(once)
    return np.memmap(path, dtype=np.uint8, mode="r")


@contextmanager
def stream_graph(job: Stream) -> Iterator[Runnable]:
    """All matrices one after the other."""
    ggml_type, n_in = STREAM_ROWS[job.by_four]
    with Tensors() as tensors:
        matrices = [tensors.new(ggml_type, n_in, job.n_out) for _ in range(job.n_matrices)]
        b = tensors.new(F32, n_in, job.n_columns)
        nodes = [tensors.call("mul_mat", matrix, b) for matrix in matrices]
        tensors.allocate()
        for matrix in matrices:
            tensors.set(matrix, weights(ggml_type))
        graph = tensors.graph(nodes)
        yield lambda: tensors.compute(graph, job.n_threads), len(nodes)


class AttentionGraphs:
    """Attention over caches of one type, which take so many bytes together; made once, seen in any shape.

    As with products, a graph goes through a part of them, the next run through the next part.
    """

    def __init__(self, type_kv: GGMLType, *, nbytes: int) -> None:
        self._memory = Tensors()
        size = SIZES[type_kv]
        self._cells = self._memory.new(type_kv, nbytes // size.type_size * size.block_size)
        self._memory.allocate()
        self._memory.set(self._cells, weights(type_kv))
        self._n_runs = 0

    @contextmanager
    def graph(self, job: Attention) -> Iterator[Runnable]:
        """The graph of attention over the caches of several layers, flash attention."""
        with Tensors() as seen, Tensors() as tensors:
            q = tensors.new(F32, job.head_size, job.n_tokens, job.n_head)
            mask = tensors.new(F16, job.n_cells, job.n_tokens)
            nodes = []
            for il in range(job.n_layers):
                kv = [seen.new(job.type_kv, job.head_size, job.n_head_kv, job.n_cells) for _ in "kv"]
                for i, tensor in enumerate(kv):
                    seen.put(tensor, at=self._cells, of=self._memory, behind=2 * il + i)
                turned = [tensors.call("permute", tensor, 0, 2, 1, 3) for tensor in kv]
                nodes.append(tensors.call("flash_attn_ext", q, *turned, mask, job.head_size**-0.5, 0.0, 0.0))
            tensors.allocate()
            tensors.set(q, np.random.default_rng(2).standard_normal(4096, dtype=np.float32))
            if job.masked:
                tensors.set(mask, np.array([0.0] + [-np.inf] * (job.n_cells - 1), dtype=np.float16))
            n_a_part = max(1, min(job.n_layers, PART_BYTES * job.n_layers // job.nbytes))
            parts = [tensors.graph(nodes[i : i + n_a_part]) for i in range(0, len(nodes) - n_a_part + 1, n_a_part)]

            def run() -> None:
                self._n_runs += 1
                tensors.compute(parts[self._n_runs % len(parts)], job.n_threads)

            yield run, n_a_part

    def close(self) -> None:
        """Free the caches."""
        self._memory.close()


@contextmanager
def operation_graph(job: Operation) -> Iterator[Runnable]:
    """An operation, again and again on the same row, or on many."""
    with Tensors() as tensors:
        make, fill = _OPERATIONS[job.op](tensors, job)
        n_nodes = N_REPEATED if job.n_rows == 1 else 4
        nodes = [make() for _ in range(n_nodes)]
        tensors.allocate()
        for tensor, data in fill.items():
            tensors.set(tensor, data)
        graph = tensors.graph(nodes)
        yield lambda: tensors.compute(graph, job.n_threads), n_nodes


@contextmanager
def nodes_graph(job: Nodes) -> Iterator[Runnable]:
    """Additions of a few elements, each waiting for the one before."""
    with Tensors() as tensors:
        a = tensors.new(F32, 16)
        nodes = [a]
        for _ in range(N_NODES):
            nodes.append(tensors.call("add", nodes[-1], a))
        tensors.allocate()
        graph = tensors.graph(nodes[1:])
        yield lambda: tensors.compute(graph, job.n_threads), N_NODES


_NOISE: Final = np.random.default_rng(3).standard_normal(1 << 16, dtype=np.float32)
_Made = tuple[Callable[[], int], dict[int, Any]]


def _unary(name: str, *more: Any, of: Any = _NOISE) -> Callable[[Tensors, Operation], _Made]:
    def make(t: Tensors, job: Operation) -> _Made:
        a = t.new(F32, job.n_row, job.n_rows)
        return lambda: t.call(name, a, *more), {a: of}

    return make


def _binary(name: str, *more: Any) -> Callable[[Tensors, Operation], _Made]:
    def make(t: Tensors, job: Operation) -> _Made:
        a, b = t.new(F32, job.n_row, job.n_rows), t.new(F32, job.n_row, job.n_rows)
        return lambda: t.call(name, a, b, *more), {a: _NOISE, b: _NOISE}

    return make


def _norm(t: Tensors, job: Operation) -> _Made:
    """With the product behind it, which ggml computes in the same go."""
    a, gain = t.new(F32, job.n_row, job.n_rows), t.new(F32, job.n_row)
    return lambda: t.call("mul", t.call("rms_norm", a, 1e-6), gain), {a: _NOISE, gain: _NOISE}


def _rope(t: Tensors, job: Operation) -> _Made:
    a, pos = t.new(F32, 64, job.n_row // 64, job.n_rows), t.new(I32, job.n_rows)
    numbers = (64, 2, 0, 1e4, 1.0, 0.0, 1.0, 32.0, 1.0)  # neox
    return lambda: t.call("rope_ext", a, pos, None, *numbers), {a: _NOISE, pos: np.arange(job.n_rows, dtype=np.int32)}


def _soft_max(t: Tensors, job: Operation) -> _Made:
    a, mask = t.new(F32, job.n_row, job.n_rows), t.new(F32, job.n_row, job.n_rows)
    return lambda: t.call("soft_max_ext", a, mask, 1.0, 0.0), {a: _NOISE}


def _cpy(t: Tensors, job: Operation) -> _Made:
    a, b = t.new(F32, job.n_row, job.n_rows), t.new(F32, job.n_row, job.n_rows)
    return lambda: t.call("cpy", a, b), {a: _NOISE}


def _set_rows(t: Tensors, job: Operation) -> _Made:
    a, b, rows = t.new(F16, job.n_row, job.n_rows), t.new(F32, job.n_row, job.n_rows), t.new(I64, job.n_rows)
    return lambda: t.call("set_rows", a, b, rows), {b: _NOISE, rows: np.arange(job.n_rows)}


def _get_rows(t: Tensors, job: Operation) -> _Made:
    a, rows = t.new(F32, job.n_row, job.n_rows), t.new(I32, job.n_rows)
    return lambda: t.call("get_rows", a, rows), {a: _NOISE, rows: np.arange(job.n_rows, dtype=np.int32)}


def _mul_by_row(t: Tensors, job: Operation) -> _Made:
    """Each row by a factor of its own, as experts' outputs by their weights."""
    a, b = t.new(F32, job.n_row, job.n_rows), t.new(F32, 1, job.n_rows)
    return lambda: t.call("mul", a, b), {a: _NOISE, b: _NOISE}


def _concat(t: Tensors, job: Operation) -> _Made:
    a, b = t.new(F32, 3, job.n_row // 4, job.n_rows), t.new(F32, 1, job.n_row // 4, job.n_rows)
    return lambda: t.call("concat", a, b, 0), {a: _NOISE}


def _concat_transposed(t: Tensors, job: Operation) -> _Made:
    """What a convolution looks at: the last three tokens, and behind them the batch's, a row a channel."""
    n_channels = job.n_row // 4 if job.n_rows == 1 else job.n_row
    a, tokens = t.new(F32, 3, n_channels), t.new(F32, n_channels, job.n_rows)
    return lambda: t.call("concat", a, t.call("permute", tokens, 1, 0, 2, 3), 0), {a: _NOISE, tokens: _NOISE}


def _ssm_conv(t: Tensors, job: Operation) -> _Made:
    a, kernel = t.new(F32, job.n_rows + 3, job.n_row), t.new(F32, 4, job.n_row)
    return lambda: t.call("ssm_conv", a, kernel), {a: _NOISE, kernel: _NOISE}


def _ssm_scan(t: Tensors, job: Operation) -> _Made:
    """Mamba-2: heads of 64 channels with a state of 128 each."""
    n_head, n_tokens = job.n_row // 64, job.n_rows
    state, x = t.new(F32, 128, 64, n_head, 1), t.new(F32, 64, n_head, n_tokens, 1)
    dt, a = t.new(F32, n_head, n_tokens, 1), t.new(F32, 1, n_head)
    b, c, ids = t.new(F32, 128, 1, n_tokens, 1), t.new(F32, 128, 1, n_tokens, 1), t.new(I32, 1)
    filled = {state: _NOISE, x: _NOISE, dt: np.abs(_NOISE), a: -np.abs(_NOISE), b: _NOISE, c: _NOISE}
    return lambda: t.call("ssm_scan", state, x, dt, a, b, c, ids), filled


def _scan(name: str, n_operands: int, *more: Any) -> Callable[[Tensors, Operation], _Made]:
    """Tokens by heads as long as a state's side, so many tensors of them, and the states."""

    def make(t: Tensors, job: Operation) -> _Made:
        d = SCANNED_STATES[job.op]
        operands = [t.new(F32, d, job.n_row // d, job.n_rows) for _ in range(n_operands)]
        operands.append(t.new(F32, d * job.n_row, 1))
        return lambda: t.call(name, *operands, *more), dict.fromkeys(operands, _NOISE)

    return make


def _delta_net(t: Tensors, job: Operation) -> _Made:
    """With one gate a head, as Qwen3-Next has it."""
    d = SCANNED_STATES[job.op]
    n_head = job.n_row // d
    qkv = [t.new(F32, d, n_head, job.n_rows) for _ in "qkv"]
    gate, beta, state = t.new(F32, 1, n_head, job.n_rows), t.new(F32, 1, n_head, job.n_rows), t.new(F32, d, d, n_head)
    filled = {**dict.fromkeys((*qkv, beta, state), _NOISE), gate: -np.abs(_NOISE)}
    return lambda: t.call("gated_delta_net", *qkv, gate, beta, state, 1), filled


_OPERATIONS: Final[dict[str, Callable[[Tensors, Operation], _Made]]] = {
    "ADD": _binary("add"),
    "MUL": _binary("mul"),
    "MUL by row": _mul_by_row,
    "RMS_NORM": _norm,
    "NORM": _unary("norm", 1e-6),
    "ROPE": _rope,
    "GLU": _binary("swiglu_split"),
    "GLU geglu": _binary("geglu_split"),
    "GLU swiglu_oai": _binary("swiglu_oai", 1.702, 7.0),
    "UNARY": _unary("silu"),
    "UNARY gelu": _unary("gelu"),
    "UNARY gelu_erf": _unary("gelu_erf"),
    "UNARY tanh": _unary("tanh", of=_NOISE / 30),  # small as logits over their cap: large ones take twice as long
    "UNARY sigmoid": _unary("sigmoid"),
    "UNARY softplus": _unary("softplus"),
    "UNARY exp": _unary("exp"),
    "SOFT_MAX": _soft_max,
    "CPY": _cpy,
    "SET_ROWS": _set_rows,
    "GET_ROWS": _get_rows,
    "SCALE": _unary("scale", 0.5),
    "CONCAT": _concat,
    "CONCAT transposed": _concat_transposed,
    "SSM_CONV": _ssm_conv,
    "SSM_SCAN": _ssm_scan,
    "GATED_DELTA_NET": _delta_net,
    "GATED_LINEAR_ATTN": _scan("gated_linear_attn", 4, 1.0),
    "RWKV_WKV6": _scan("rwkv_wkv6", 5),
    "RWKV_WKV7": _scan("rwkv_wkv7", 6),
    "L2_NORM": _unary("l2_norm", 1e-6),
    "SUM_ROWS": _unary("sum_rows"),
    "ARGSORT": _unary("argsort", 1),
}
