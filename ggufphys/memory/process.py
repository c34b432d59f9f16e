"""How much resident memory will the process have, phase by phase: buffers as far as touched, and the rest?

Reserved is not resident: of the compute buffer only what a batch writes is touched; of the file, all of it (llama.cpp
asks for the whole mapping in advance). Steady decode, the last phase, is after one prompt of a full physical batch and
some decode steps, with logits for the last token only.

Error: measured by `python -m bench.process`, see docs/measure.md. On other systems than Linux the split differs.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Final

from ggufphys.arch.graph_nodes import max_nodes
from ggufphys.context import ContextParams, pad_ctx
from ggufphys.frozen import dataclass, replace
from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.batch import Batch, reserved_batches
from ggufphys.graph.devices.placed import Buffer, Placed
from ggufphys.machine import host
from ggufphys.memory.graphs import graph_bytes, scheduler_bytes
from ggufphys.memory.terms import Backing, Phase, Quantity, Term, total
from ggufphys.memory.vocabulary import vocabulary_bytes
from ggufphys.memory.weights import READ_BY_ROW
from ggufphys.params import HOST, Params

# An empty process: measured on Linux x86-64 with CPython 3.11 and llama-cpp-python 0.3.36 (`ggufphys measure`, phase
# "library"); `measure` replaces it by what it finds in the same run.
BASE_ANON_BYTES: Final = 24_800 << 10
BASE_FILE_BYTES: Final = 20_400 << 10
# llama.cpp's own code that is paged in as it comes to be used; measured likewise, as the growth of RssFile that no
# mapping of the model explains.
CODE_BYTES: Final[Mapping[Phase, int]] = {"weights": 1_200 << 10, "context": 512 << 10, "prefill": 1_000 << 10}
# What the heap holds beside the terms below: metadata, tensors' descriptions, threads, fragments. Measured as the
# growth of RssAnon that they don't explain.
HEAP_BYTES: Final[Mapping[Phase, int]] = {"weights": 1_500 << 10, "context": 300 << 10, "prefill": 300 << 10}

TOKEN_DATA_BYTES: Final = 12  # llama_token_data: id, logit, probability
BASE: Final[Mapping[Backing, str]] = {"file": "interpreter and library, code", "anon": "interpreter and library"}
CODE: Final = "llama.cpp's code"
VOCABULARY: Final = "vocabulary"
TOUCHED: Final = "compute buffer, touched"
KEPT: Final = "freed after loading, kept by malloc"
_MEASURED: Final = "measured once, Linux x86-64"
_PHASES: Final[Mapping[Quantity, Phase]] = {
    "model": "weights", "context": "context", "compute": "prefill", "output": "context", "attachment": "context",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What is known of the process beside its parameters.

    `base_bytes` are resident in one that has only loaded the library, `base_file_bytes` of them file-backed, where
    that was measured; `n_prompt` is the longest prompt so far (None: at least a physical batch); `n_batch` is the
    largest pass so far (None: the prompt, or a physical batch if it is longer); `n_sampled` are the
    sequences that a token was ever chosen for (None: all).
    """

    base_bytes: int | None = None
    base_file_bytes: int | None = None
    n_prompt: int | None = None
    n_batch: int | None = None
    n_sampled: int | None = None

    def base(self, backing: Backing) -> tuple[int, str]:
        """Bytes of the empty process, and where they are from."""
        if self.base_bytes is None:
            return (BASE_ANON_BYTES if backing == "anon" else BASE_FILE_BYTES), _MEASURED
        file = self.base_file_bytes
        if file is None:  # divided as where it was measured
            file = self.base_bytes * BASE_FILE_BYTES // (BASE_ANON_BYTES + BASE_FILE_BYTES)
        return (self.base_bytes - file if backing == "anon" else file), "measured before the model is loaded"


@dataclass(frozen=True, slots=True)
class Standing:
    """The terms of a process that are the same for contexts of every length: those in front of others, and behind."""

    first: tuple[Term, ...]
    last: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Loading:
    """The transient terms of loading weights, and the bytes that the heap keeps of it."""

    terms: tuple[Term, ...]
    kept_bytes: int


def what_stands(params: Params, context: ContextParams, conditions: Conditions) -> Hashable:
    """All that `standing_terms` follow from, beside the file."""
    n_batch = context.n_ubatch, min(context.n_ctx, context.n_ubatch)
    return conditions, context.n_seq_max, context.embeddings, n_batch, len(params.devices)


def standing_terms(
    gguf: GGUFFile, n_vocab: int, params: Params, context: ContextParams, conditions: Conditions
) -> Standing:
    """The terms that no length of the context and no weight's place makes a difference to."""
    n_sampled = 0 if context.embeddings else context.n_seq_max
    if conditions.n_sampled is not None:
        n_sampled = min(n_sampled, conditions.n_sampled)
    first = (_term(name, *conditions.base(backing), backing=backing, phase="library") for backing, name in BASE.items())
    last = (
        _term(VOCABULARY, *vocabulary_bytes(gguf), phase="weights"),
        *_graph_terms(gguf, params, context, conditions.n_prompt),
        _term(
            "samplers",
            n_sampled * n_vocab * TOKEN_DATA_BYTES,
            f"{n_sampled} sequences x {n_vocab:,} candidates x {TOKEN_DATA_BYTES} B",
            phase="decode", source="src/llama-sampler.cpp, llama_sampler_sample; common/sampling.cpp, set_logits",
        ),
        *(_term(CODE, n, _MEASURED, backing="file", phase=phase) for phase, n in CODE_BYTES.items()),
        *(_term("heap", n, _MEASURED, phase=phase) for phase, n in HEAP_BYTES.items()),
    )  # fmt: skip
    return Standing(tuple(first), last)


def process_terms(
    layouts: Layouts,
    params: Params,
    context: ContextParams,
    buffers: Sequence[Term],
    placed: Placed,
    conditions: Conditions,
    standing: Standing,
    loading: Loading,
) -> tuple[Term, ...]:
    """Terms of process_bytes, and the transient ones of loading.

    `buffers` are the terms of all other quantities, of which the host's count, and those of devices in the process;
    `placed` says where the weights lie, `loading` what loading them takes.
    """
    inside = _devices_inside(placed)
    terms = [
        *standing.first,
        *(resident(t) for t in buffers if t.quantity != "compute" and t.device == HOST and not _is_lazy(t)),
        *((resident(t) for t in buffers if t.quantity != "compute" and t.device in inside) if inside else ()),
        *_output_terms(context, buffers, conditions),
        *_compute_terms(layouts, params, context, buffers, placed, conditions),
        *(_blas_terms(layouts, context, placed.weights, conditions) if params.use_blas else ()),
        *(_inside_terms(layouts, context, buffers, placed, inside, conditions) if inside else ()),
        *standing.last,
    ]
    if not loading.kept_bytes:
        return (*terms, *loading.terms)
    large = total(buffers, "compute", HOST) >= loading.kept_bytes  # what is allocated counts, not what is touched of it
    again = [term for term in terms if term.name != TOUCHED or not large]
    return (*terms, *_kept_terms(again, loading.kept_bytes), *loading.terms)


def _devices_inside(placed: Placed) -> frozenset[str]:
    """Devices that are the processor itself, as lavapipe is: what lies there lies in the process."""
    devices = placed.placement.devices
    return frozenset(d.name for d in devices if d.limits is not None and d.limits.kind == "cpu")


def resident(term: Term) -> Term:
    """A buffer's term as one of the process: mapped ones are backed by the file, all others anonymous."""
    return Term(
        quantity="process", name=term.name, nbytes=term.nbytes, buffer=term.buffer, formula=term.formula,
        source=term.source, device=term.device, backing="file" if term.buffer.endswith("_Mapped") else "anon",
        phase=_PHASES[term.quantity],
    )  # fmt: skip


def _output_terms(context: ContextParams, buffers: Sequence[Term], conditions: Conditions) -> Iterator[Term]:
    """What the output buffer grows by in a context for embeddings, all of whose tokens are outputs.

    A row has its logits, which nothing computes where embeddings are pooled: all of it is written with zeros.
    """
    if not context.embeddings:
        return
    row_bytes = total(buffers, "output") // context.n_seq_max
    n_outputs = max(_n_prompt(context, conditions), context.n_seq_max)
    yield _term(
        "output buffer, grown", (n_outputs - context.n_seq_max) * row_bytes,
        f"{n_outputs} outputs less the {context.n_seq_max} reserved x {row_bytes:,} B", phase="prefill",
        source="src/llama-context.cpp, output_reserve",
    )  # fmt: skip


def _compute_terms(
    layouts: Layouts,
    params: Params,
    context: ContextParams,
    buffers: Sequence[Term],
    placed: Placed,
    conditions: Conditions,
) -> Iterator[Term]:
    reserved = total(buffers, "compute", HOST)
    touched, work = reserved, 0
    if all(term.device == HOST for term in buffers):  # of a graph that is cut, take all that is reserved
        touched, work = _touched(layouts, params, context, placed.repacked, conditions)
    yield _term(
        TOUCHED, touched, f"what one batch writes of {reserved:,} reserved", phase="prefill",
        source="ggml/src/ggml-alloc.c, ggml_gallocr_alloc_graph",
    )  # fmt: skip
    yield _term(
        "kernels' scratch memory", work, "what the hungriest matrix product asks for", phase="prefill",
        source="ggml/src/ggml-cpu/ggml-cpu.c, ggml_graph_plan",
    )  # fmt: skip


def _touched(
    layouts: Layouts, params: Params, context: ContextParams, repacked: frozenset[str], conditions: Conditions
) -> tuple[int, int]:
    """Bytes of the compute buffer written by a prompt batch with an output for each sequence, and bytes of scratch.

    A batch of one sequence's tokens has the same shapes as one that all share: as many rows, as many cells.
    """
    reserved = layouts.layout(context, reserved_batches(context)[0])
    used, batch = _prompt(context, conditions)
    written, work = layouts.use(
        reserved, used, batch,
        n_threads=params.n_threads or 1, repacked=repacked, cpu_features=host.cpu_features(),
    )  # fmt: skip
    return reserved.allocation.touched_bytes(written), work


def _n_prompt(context: ContextParams, conditions: Conditions) -> int:
    """Tokens of the largest pass."""
    return min(context.n_ubatch, context.n_ctx, conditions.n_batch or conditions.n_prompt or context.n_ubatch)


def _prompt(context: ContextParams, conditions: Conditions) -> tuple[ContextParams, Batch]:
    """A physical batch with an output for each sequence (each token, for embeddings), and the context that it fills."""
    n_prompt, n_tokens = conditions.n_prompt, _n_prompt(context, conditions)
    # Of the cache it looks at what is filled, however long the context is.
    cells = min(context.n_ctx_seq, pad_ctx(max(n_tokens, n_prompt or 0)))
    used = replace(context, n_ctx=cells * context.n_stream, n_ctx_seq=cells)
    n_seqs = context.n_seq_max
    n_tokens = -(-n_tokens // n_seqs) * n_seqs
    return used, Batch(n_tokens=n_tokens, n_seqs=n_seqs, n_outputs=n_tokens if context.embeddings else n_seqs)


def _blas_terms(
    layouts: Layouts, context: ContextParams, placed: Mapping[Buffer, Sequence[TensorInfo]], conditions: Conditions
) -> Iterator[Term]:
    from ggufphys.memory.blas import blas_terms  # what hardly any build needs

    return blas_terms(layouts, context, *_prompt(context, conditions), placed)


def _inside_terms(
    layouts: Layouts,
    context: ContextParams,
    buffers: Sequence[Term],
    placed: Placed,
    inside: frozenset[str],
    conditions: Conditions,
) -> Iterator[Term]:
    """What devices that are the processor add: what a prompt touches of their compute buffers, and their driver's."""
    from ggufphys.graph.devices.sizes import buffer_sizes  # where a GPU is none
    from ggufphys.memory.driver import driver_terms

    used, batch = _prompt(context, conditions)
    used = replace(used, n_ubatch=batch.n_tokens, n_outputs_max=batch.n_outputs)
    sizes = buffer_sizes(layouts, used, placed).nbytes
    for device in sorted(inside):
        reserved = total(buffers, "compute", device)
        yield _term(
            f"{TOUCHED} on {device}", min(sizes.get(device, 0), reserved), f"what one takes of {reserved:,} reserved",
            phase="prefill", source="ggml/src/ggml-alloc.c, ggml_gallocr_alloc_graph",
        )  # fmt: skip
    yield from driver_terms(layouts, context, placed.weights, inside, runs=any(sizes.get(d) for d in inside))


def _graph_terms(gguf: GGUFFile, params: Params, context: ContextParams, n_prompt: int | None) -> Iterator[Term]:
    n_nodes = max_nodes(gguf.architecture, n_tensors=len(gguf.tensors), n_ubatch=min(context.n_ctx, context.n_ubatch))
    graph, scheduler = graph_bytes(n_nodes), scheduler_bytes(n_nodes, len(params.devices) + 1)
    # One graph is kept for batches with outputs, one for those without, which prompts of several batches have.
    n_graphs = 2 if n_prompt is not None and n_prompt > context.n_ubatch else 1
    source = "src/llama-context.cpp, graph_max_nodes, sched_reserve"
    yield _term(
        "graph and scheduler", graph + scheduler, f"room for {n_nodes:,} nodes: {graph:,} + {scheduler:,}",
        phase="context", source=source,
    )  # fmt: skip
    yield _term(
        "graphs of batches", n_graphs * graph, f"{n_graphs} x {graph:,}: room for {n_nodes:,} nodes",
        phase="prefill", source=source,
    )  # fmt: skip


def _kept_terms(terms: Sequence[Term], kept: int) -> Iterator[Term]:
    """What the heap keeps of staging buffers, and how much of that later buffers which are smaller take again."""
    source = "glibc malloc/malloc.c, __libc_free, systrim"
    again = {
        phase: sum(t.nbytes for t in terms if t.backing == "anon" and t.phase == phase and t.nbytes < kept)
        for phase in ("context", "prefill", "decode")
    }
    yield _term(KEPT, kept, "the second largest staging buffer of at most 32 MiB", phase="weights", source=source)
    left = kept
    phase: Phase
    for phase in ("context", "prefill", "decode"):
        taken = min(left, again[phase])
        left -= taken
        if taken:
            yield _term(f"{KEPT}, taken again", -taken, "smaller buffers", phase=phase, source=source)


def _is_lazy(term: Term) -> bool:
    """Is it mapped without being read in advance? Then hardly any of it is resident."""
    return term.quantity == "model" and term.name.endswith(READ_BY_ROW)


def _term(
    name: str,
    nbytes: int,
    formula: str,
    *,
    phase: Phase,
    backing: Backing = "anon",
    source: str = "ggufphys measure",
) -> Term:
    return Term(
        quantity="process", name=name, nbytes=nbytes, buffer="", formula=formula, source=source,
        backing=backing, phase=phase,
    )  # fmt: skip
