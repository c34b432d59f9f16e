"""What memory will the numpy engine take? The same graphs as the computation's, looked at for bytes.

Buffers are exact: the engine holds arrays of these sizes and nothing more. What of it is resident is an estimate: pages
that nothing was written to do not count, and numpy's temporaries come and go.

Error: `ggufphys measure --engine numpy` prints it; docs/measure.md has what was found.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from ggufphys.gguf import GGMLType
from ggufphys.graph.allocating.alloc import allocate
from ggufphys.graph.batch import Batch
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.terms import Backing, Phase, Quantity, Term
from refengine.batch import Tokens
from refengine.model import PROGRAMS, Model
from refengine.ops.attention import TOKENS, heads_at_once

# An interpreter that has imported numpy and the engine, and BLAS after a first product: measured on Linux x86-64 with
# CPython 3.11 and numpy 2.4; `measure` replaces it by what it finds in the same run.
BASE_BYTES: Final[Mapping[Backing, int]] = {"anon": 20_700 << 10, "file": 13_800 << 10}
# Code of Python's and numpy's libraries that is paged in as it comes to be used; measured likewise
CODE_BYTES: Final = 1_100 << 10
# Modules that are imported late, what building graphs leaves behind, fragments of the heap; measured likewise
HEAP_BYTES: Final = 2 << 20
# What a node of a graph takes as Python objects: arrays, views, closures; measured likewise
NODE_BYTES: Final = 4_500
PAGE_BYTES: Final = 4096
FAULT_AROUND_BYTES: Final = 64 << 10  # what Linux maps of a file when a page of it is touched: mm/memory.c
TIMES_SCORES: Final = 3  # arrays as large as the scores that a softmax has at a time: scores, differences, weights
LOOKED_UP: Final = "GET_ROWS"

ENGINE: Final = "refengine"


def predict_footprint(
    model: Model,
    *,
    n_prompt: int,
    n_predict: int = 1,
    base_bytes: int | None = None,
    base_file_bytes: int | None = None,
) -> MemoryPrediction:
    """Bytes of a run: a prompt, then tokens one by one, all of one sequence from an empty memory.

    Args:
        model: opened, nothing of it need have been computed.
        n_prompt: tokens of the prompt.
        n_predict: tokens behind it.
        base_bytes: resident in a process that has imported the engine, where that was measured.
        base_file_bytes: those of them that are file-backed.
    """
    base = dict(BASE_BYTES)
    if base_bytes is not None:
        file = base_file_bytes if base_file_bytes is not None else base_bytes * base["file"] // sum(base.values())
        base = {"anon": base_bytes - file, "file": file}
    graphs = _graphs(model, n_prompt, n_predict)
    first = next(iter(graphs.values()))
    scores, besides = max(_temporaries(graph) for graph in graphs.values())
    terms = (
        *(_process(f"interpreter and numpy ({backing})", n, "library", backing) for backing, n in base.items()),
        _process(
            "header of the file", sum(shard.header.data_offset for shard in model.gguf.shards), "weights", "file",
            formula="vocabulary and tensor table, stepped over",
        ),
        _process("heap", HEAP_BYTES, "weights", formula="measured once, Linux x86-64"),
        _process("libraries' code", CODE_BYTES, "prefill", "file", formula="measured once, Linux x86-64"),
        *_weights(model, first, n_prompt + n_predict),
        *_caches(model, first, n_prompt + n_predict),
        *_buffers(graphs),
        _process(
            "graphs as Python objects", NODE_BYTES * sum(len(graph.nodes) for graph in graphs.values()), "prefill",
            formula=f"{NODE_BYTES:,} B a node, measured once",
        ),
        _process(
            "temporaries, the largest kept by malloc", scores, "prefill", formula=f"scores of attention, {scores:,} B",
        ),
        _process(
            "temporaries", besides, "prefill", quantity="transient",
            formula="keys and values as F32, or the other arrays of a softmax",
        ),
    )  # fmt: skip
    return MemoryPrediction(
        context=model.context,
        basis={"model": "exact", "context": "exact", "compute": "exact", "process": "estimate"},
        terms=terms,
    )


def _graphs(model: Model, n_prompt: int, n_predict: int) -> Mapping[Batch, Graph]:
    """The graphs that are kept at the end."""
    kept: OrderedDict[Batch, None] = OrderedDict()
    steps = [(0, n_prompt), *((n_prompt + i, n_prompt + i + 1) for i in range(n_predict))]
    tokens = (
        Tokens(
            ids=np.zeros(end - start, np.int64), positions=np.arange(start, end),
            sequences=np.zeros(end - start, np.int64), wanted=np.array([end - start - 1]),
        )
        for start, end in steps
    )  # fmt: skip
    for batch in model.batches(tokens):
        kept[batch] = None
        kept.move_to_end(batch)
        if len(kept) > PROGRAMS:
            kept.popitem(last=False)
    return {batch: model.graph(batch) for batch in kept}


def _weights(model: Model, graph: Graph, n_tokens: int) -> Iterator[Term]:
    """The file's tensors that the graph names, and those it multiplies with as F32."""
    named = {t.name: t for t in _externals(graph) if t.name}
    sizes = {name: model.gguf.tensors_by_name[name].nbytes or 0 for name in named}
    mapped = sum(sizes.values())
    read, made = set[str](), dict[object, int]()
    for node in graph.nodes:
        for i, source in enumerate(node.src):
            base = source.view_src or source
            if not base.external or not base.name or (node.op == LOOKED_UP and i == 0):
                continue
            read.add(base.name)
            if source.type is not GGMLType.F32:
                made[base.name, source.offset, source.ne, source.nb] = 4 * int(np.prod(source.ne))
    held = sum(made.values()) if model.weights.hold == "f32" else 0
    file = model.gguf.path.name
    yield _buffer("model", f"weights mapped from {file}", mapped, "mapped", f"{len(named)} tensors")
    yield _process(
        f"weights mapped from {file}, read", sum(sizes[name] for name in read), "weights", "file",
        formula=f"{len(read)} tensors",
    )  # fmt: skip
    looked_up = [min(size, n_tokens * FAULT_AROUND_BYTES) for name, size in sizes.items() if name not in read]
    yield _process(
        f"weights mapped from {file}, looked up", sum(looked_up), "prefill", "file",
        formula=f"{FAULT_AROUND_BYTES:,} B around each of {n_tokens:,} rows of {len(looked_up)} tensors",
    )  # fmt: skip
    if held:
        formula = f"4 B x {held // 4:,} weights of {len(made)} matrices"
        yield _buffer("model", "weights held as F32", held, "F32", formula)
        yield _process("weights held as F32", held, "weights", formula=formula)


def _caches(model: Model, graph: Graph, n_tokens: int) -> Iterator[Term]:
    caches = {t.params: t for t in _externals(graph) if not t.name}
    reserved = sum(t.nbytes for t in caches.values())
    share = min(1.0, n_tokens / model.context.n_ctx_seq)
    touched = sum(min(t.nbytes, _pages(int(t.nbytes * share))) for t in caches.values())
    yield _buffer("context", "caches", reserved, "caches", f"{len(caches)} tensors")
    yield _process("caches, written", touched, "prefill", formula=f"of {n_tokens:,} tokens, of {reserved:,} B reserved")


def _buffers(graphs: Mapping[Batch, Graph]) -> Iterator[Term]:
    for batch, graph in graphs.items():
        nbytes = allocate(graph).buffer_bytes
        name = f"graph of {batch.n_tokens} token{'s' if batch.n_tokens > 1 else ''} over {batch.n_kv} cells"
        yield _buffer("compute", name, nbytes, "graphs", "where ggml's allocator puts its tensors")
        yield _process(name, nbytes, "prefill" if batch.n_tokens > 1 else "decode")


def _externals(graph: Graph) -> Iterator[Tensor]:
    """The tensors that lie outside of the graph: weights, which have a name, and caches."""
    seen = set[int]()
    for tensor in (*graph.leafs, *graph.nodes):
        for each in (tensor, *tensor.src):
            base = each.view_src or each
            if base.external and id(base) not in seen:
                seen.add(id(base))
                yield base


def _temporaries(graph: Graph) -> tuple[int, int]:
    """Bytes of the largest scores that attention has at a time, and of what stands beside them."""
    sizes = [(0, 0)]
    for node in graph.nodes:
        if node.op == "FLASH_ATTN_EXT":
            q, k, v = node.src[:3]
            n_cells, n_heads, n_stream = k.ne[1:]
            shared = q.ne[2] // n_heads
            heads = n_stream * min(n_heads, heads_at_once(n_stream * shared, q.ne[1], n_cells))
            sizes.append(
                (4 * heads * shared * min(TOKENS, q.ne[1]) * n_cells, 4 * heads * n_cells * (k.ne[0] + v.ne[0]))
            )
        elif node.op == "SOFT_MAX":
            sizes.append((node.nbytes, (TIMES_SCORES - 1) * node.nbytes))
    return max(sizes)


def _pages(nbytes: int) -> int:
    return -(-nbytes // PAGE_BYTES) * PAGE_BYTES


def _buffer(quantity: Quantity, name: str, nbytes: int, buffer: str, formula: str) -> Term:
    return Term(quantity=quantity, name=name, nbytes=nbytes, buffer=buffer, formula=formula, source=ENGINE)


def _process(
    name: str,
    nbytes: int,
    phase: Phase,
    backing: Backing = "anon",
    *,
    formula: str = "measured before the model is opened",
    quantity: Quantity = "process",
) -> Term:
    return Term(
        quantity=quantity, name=name, nbytes=nbytes, buffer="", formula=formula, source=ENGINE,
        backing=backing, phase=phase,
    )  # fmt: skip
