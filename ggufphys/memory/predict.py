"""What will this model cost in memory, run like this? All quantities together, each with its evidence."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Final

from ggufphys.arch import ArchRule, rule_for
from ggufphys.arch.caches import FullKV
from ggufphys.arch.graph_nodes import BY_SEQUENCE
from ggufphys.arch.older import taken_as
from ggufphys.builds.moves import Rule, rules_of
from ggufphys.builds.proven import require_known, why_unproven
from ggufphys.errors import GGUFError
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile
from ggufphys.graph.allocating.traced import collection_paused
from ggufphys.graph.devices.placed import Placement, what_places
from ggufphys.graph.devices.placement import divides_unknown_memory, place_layers, place_weights
from ggufphys.graph.devices.runs import Runs, require_model
from ggufphys.hparams.hparams import HParams
from ggufphys.loads.check import not_like_this, reasons
from ggufphys.loads.graphs import graph_failures, how_it_runs
from ggufphys.loads.refusal import Refusal, refused
from ggufphys.loads.unexpected import told
from ggufphys.machine import host
from ggufphys.memory.compute import compute_basis, compute_terms, output_terms
from ggufphys.memory.context import CachesByDevice, beyond_training, caches_by_device
from ggufphys.memory.loading import loading_terms
from ggufphys.memory.phases import ProcessMemory, ProcessPhase, process_memory
from ggufphys.memory.process import Conditions, process_terms
from ggufphys.memory.terms import Basis, Quantity, Term, total
from ggufphys.memory.weights import weight_terms
from ggufphys.params import HOST, ContextParams, Device, Params

MOST_LAYERS: Final = 1 << 16  # llama.cpp 0c1e570 src/llama-hparams.h has room for 512, a later one perhaps for more
NO_ROW: Final = "its architecture has no rule here; a graph of the usual shape stands for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """What lies on one device; `Host` is main memory. `memory_bytes` is what is free there, None when unknown."""

    name: str
    model_bytes: int
    context_bytes: int
    compute_bytes: int
    output_bytes: int
    attachment_bytes: int
    memory_bytes: int | None

    @property
    def total_bytes(self) -> int:
        """All of llama.cpp's buffers there."""
        own = self.model_bytes + self.context_bytes + self.compute_bytes + self.output_bytes
        return own + self.attachment_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPrediction:
    """Bytes by quantity, as sums of `terms`. `context` holds the parameters after llama.cpp's rounding.

    `notes` say what a reader should know about the figures, a sentence each; `refusals` why llama.cpp would not load
    the file, for which they were forced.
    """

    context: ContextParams
    basis: dict[Quantity, Basis]
    terms: tuple[Term, ...]
    given_devices: tuple[Device, ...] = ()
    use_mlock: bool = False
    notes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def model_bytes(self) -> int:
        """Weight buffers, mapped and allocated."""
        return total(self.terms, "model")

    @property
    def context_bytes(self) -> int:
        """KV cache and recurrent state."""
        return total(self.terms, "context")

    @property
    def compute_bytes(self) -> int:
        """The buffer for intermediate results."""
        return total(self.terms, "compute")

    @property
    def output_bytes(self) -> int:
        """The buffer for logits."""
        return total(self.terms, "output")

    @property
    def attachment_bytes(self) -> int:
        """Buffers beside the model's own: adapters, mmproj, a draft model."""
        return total(self.terms, "attachment")

    @property
    def total_bytes(self) -> int:
        """All of llama.cpp's buffers."""
        own = self.model_bytes + self.context_bytes + self.compute_bytes + self.output_bytes
        return own + self.attachment_bytes

    @property
    def ceilings(self) -> tuple[Term, ...]:
        """What may be taken later, up to so much each; nothing is reserved for it, and it is in no total."""
        return tuple(term for term in self.terms if term.quantity == "ceiling")

    @property
    def process_bytes(self) -> int:
        """Resident memory of the process in steady decode."""
        return total(self.terms, "process")

    @property
    def process(self) -> ProcessMemory:
        """The same by kind, by phase, and at its peak."""
        return process_memory(self.terms, use_mlock=self.use_mlock)

    @property
    def devices(self) -> tuple[DeviceMemory, ...]:
        """The same by device: `Host`, then those that were given, in their order."""
        rows = ((HOST, None), *((d.name, d.memory_bytes or None) for d in self.given_devices))
        return tuple(
            DeviceMemory(
                name=name,
                model_bytes=total(self.terms, "model", name),
                context_bytes=total(self.terms, "context", name),
                compute_bytes=total(self.terms, "compute", name),
                output_bytes=total(self.terms, "output", name),
                attachment_bytes=total(self.terms, "attachment", name),
                memory_bytes=memory_bytes,
            )
            for name, memory_bytes in rows
        )


def predict_memory(
    gguf: GGUFFile,
    params: Params | None = None,
    *,
    base_bytes: int | None = None,
    base_file_bytes: int | None = None,
    n_prompt: int | None = None,
    n_sampled: int | None = None,
    force: bool = False,
) -> MemoryPrediction:
    """Predict what llama.cpp will allocate for this file and these parameters (default: llama.cpp's).

    Args:
        gguf: an open file.
        params: how it will be run.
        base_bytes: resident memory of a process that has only loaded the library, where that was measured.
        base_file_bytes: how much of base_bytes is file-backed; None: divided as in the process we measured.
        n_prompt: for process_bytes: tokens of the longest prompt so far; None for at least a physical batch.
        n_sampled: for process_bytes: sequences that a token was ever chosen for; None for all.
        force: predict for a file that llama.cpp would not load, too; all of `basis` is then "refused".

    Raises:
        UnsupportedError: the file is no model, or its architecture has no rule yet or is not known to the build.
        RefusedError: llama.cpp would not load the file; it holds the reasons.
        GGUFError: a key or a tensor that the prediction needs is missing or malformed.
        ValueError: llama.cpp would refuse the parameters; the message gives its reason.
    """
    params = params or Params()
    require_known(gguf.architecture, params.llama_build)
    conditions = Conditions(
        base_bytes=base_bytes, base_file_bytes=base_file_bytes, n_prompt=n_prompt, n_sampled=n_sampled
    )
    return Predictor(gguf, force=force).predict(params, conditions)


class Predictor(Runs):
    """Predictions for one file, run in different ways: what all of them share is worked out once.

    `refusals` say why llama.cpp would not load the file, which is then predicted with `force` alone.

    Raises:
        RefusedError: llama.cpp would not load the file; it holds the reasons.
    """

    def __init__(
        self,
        gguf: GGUFFile,
        target: GGUFFile | None = None,
        *,
        force: bool = False,
        guessed: tuple[ArchRule, HParams] | None = None,
    ) -> None:
        """`guessed`: what is taken for the row and hyperparameters of an architecture that has none (`arch.guess`).

        Whether llama.cpp would load such a file is not asked, and all figures are estimates.
        """
        require_model(gguf)
        gguf.require_sizes(gguf.tensors)
        is_guess = guessed is not None
        lacks_target = not is_guess and target is None and rule_for(gguf.architecture).alone(gguf)  # told below
        self.force = force
        self.is_guess = is_guess
        self.refusals: tuple[Refusal, ...] = ()
        self.gguf = gguf
        self._alone = target is None
        self._verdicts: dict[bool, tuple[Refusal, ...]] = {}  # with the prediction head's tensors, and without
        if lacks_target or is_guess:
            self._verdicts = {False: (), True: ()}
        elif self._verdict(False) and self._verdict(True):  # else parameters decide, and `predict` tells
            self._refuse(self._verdict(False), gguf)
        self._graph_verdicts: dict[Hashable, tuple[Refusal, ...]] = {}
        with told(gguf, lambda: self.refusals):
            super().__init__(gguf, target, guessed=guessed)
        self._weight_terms: dict[Hashable, tuple[Term, ...]] = {}
        self._caches: dict[Hashable, CachesByDevice] = {}
        self._empty_rows: dict[frozenset[Rule], bool] = {}
        self._loading_terms: dict[Hashable, tuple[Term, ...]] = {}

    def predict(self, params: Params, conditions: Conditions | None = None) -> MemoryPrediction:
        """What `predict_memory` says."""
        if not self.is_guess:
            require_known(self.h.arch, params.llama_build)
        params = taken_as(self.h, params, rules_of(params.llama_build))
        with told(self.gguf, lambda: self.refusals), collection_paused():
            found = self._file_verdict(params)
            otherwise = "" if self.force or not found else self._otherwise(params, found)
            if otherwise:
                raise not_like_this(self.gguf, found, otherwise)
            self._refuse(found, self.gguf)
            return self._predict(params, conditions)

    def _verdict(self, load_mtp: bool) -> tuple[Refusal, ...]:
        if load_mtp not in self._verdicts:
            self._verdicts[load_mtp] = reasons(self.gguf, alone=self._alone, load_mtp=load_mtp)
        return self._verdicts[load_mtp]

    def _file_verdict(self, params: Params) -> tuple[Refusal, ...]:
        return self._verdict(params.load_mtp) or self._graph_verdict(params)

    def _otherwise(self, params: Params, found: Sequence[Refusal]) -> str:
        """In which other way llama.cpp makes a context of the file; empty where it does in none."""
        if all(refusal.in_context for refusal in found):
            return how_it_runs(params, self._file_verdict)
        head = params.load_mtp and not self._verdict(load_mtp=False)
        return "without its prediction head (load_mtp)" if head else ""

    def _graph_verdict(self, params: Params) -> tuple[Refusal, ...]:
        """Once for each build and kind of attention: the graph of another batch has the same weights."""
        context = self.context(params)
        one = context.n_seq_max == 1
        # Blocks that do not divide the cells end llama.cpp where they are made of these.
        n_cells = context.n_ctx_seq if self.h.indexer_head_size and "blocks_of_cells" in context.rules else 0
        attends = context.flash_attn, context.v_trans, context.kv_unified or one, one
        pools = context.embeddings, context.pooling
        n_nodes = (context.n_seq_max, context.n_ubatch) if self.h.arch in BY_SEQUENCE else ()
        kind = (params.load_mtp, context.ctx_type, *attends, *pools, context.rules, n_cells, n_nodes)
        if kind not in self._graph_verdicts:
            self._graph_verdicts[kind] = tuple(graph_failures(self.layouts_of(params), context))
        return self._graph_verdicts[kind]

    def _refuse(self, refusals: tuple[Refusal, ...], gguf: GGUFFile) -> None:
        self.refusals = refusals
        if refusals and not self.force:
            raise refused(gguf, refusals)

    def _predict(self, params: Params, conditions: Conditions | None) -> MemoryPrediction:
        h = self.h
        if not params.no_alloc and params.ctx_type == "default" and self._keeps_empty_rows(params):
            raise ValueError(
                "llama.cpp fails to allocate a KV cache whose layers have no heads for keys and values (head_count_kv)"
            )
        run = self.run(params)
        context, placed = run.context, run.placed
        buffers = (
            *self.weight_terms(params),
            *self.caches(params).terms(context),
            *compute_terms(run.layouts, context, placed),
            *output_terms(h, context, placed.placement),
        )
        process = process_terms(
            self.gguf, run.layouts, params, context, buffers, placed, conditions or Conditions(),
            self.loading_terms(params),
        )  # fmt: skip
        pools = context.pooling != "none"
        why_not = NO_ROW if self.is_guess else why_unproven(h.arch, params.llama_build, pools=pools)
        proven: Basis = "exact" if placed.is_proven and not why_not else "estimate"
        basis: dict[Quantity, Basis] = {
            "model": proven,
            "context": proven,
            "compute": proven if compute_basis(h.arch, context.ctx_type) == "exact" else "estimate",
            "output": "estimate" if self.is_guess else "exact",
            "process": "estimate",
        }
        return MemoryPrediction(
            context=context,
            basis=dict.fromkeys(basis, "refused") if self.refusals else basis,
            terms=(*buffers, *process),
            given_devices=params.devices,
            use_mlock=params.use_mlock,
            notes=(
                *_notes(params, context, placed.placement, self.weight_terms(params), self.h.n_ctx_train),
                *((f"for llama.cpp b{params.llama_build} an estimate: {why_not}",) if why_not else ()),
            ),
            refusals=self.refusals,
        )

    def _keeps_empty_rows(self, params: Params) -> bool:
        """Whether layers attend, and all to rows of nothing.

        Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, llama_kv_cache ctor; ggml/src/ggml-alloc.c,
        ggml_backend_alloc_ctx_tensors_from_buft_impl (no buffer where all tensors are empty).
        """
        rules = rules_of(params.llama_build)
        if rules not in self._empty_rows:
            kept = [c for layer in self.rule_in(params).layers(self.h) for c in layer if isinstance(c, FullKV)]
            rows = sum(c.n_embd_k_gqa + c.n_embd_v_gqa for c in kept)
            self._empty_rows[rules] = bool(kept) and not rows
        return self._empty_rows[rules]

    def caches(self, params: Params) -> CachesByDevice:
        """What layers keep, and where, when run like this.

        Raises:
            ValueError: llama.cpp has no such type of context for this model.
        """
        key = (what_places(params), params.ctx_type)
        caches = self._caches.get(key)
        if caches is None:
            placement = self.placed(params).placement
            caches = self._caches[key] = caches_by_device(
                self.h, self.rule_in(params), params.ctx_type, placement.kv, placement.backends
            )
        return caches

    def weight_terms(self, params: Params) -> tuple[Term, ...]:
        """The terms of model_bytes."""
        key = what_places(params)
        terms = self._weight_terms.get(key)
        if terms is None:
            placed = self.placed(params)
            terms = self._weight_terms[key] = weight_terms(self.gguf, placed.weights, no_alloc=params.no_alloc)
        return terms

    def loading_terms(self, params: Params) -> tuple[Term, ...]:
        """The terms of what is held while weights are loaded."""
        key = what_places(params)
        terms = self._loading_terms.get(key)
        if terms is None:
            placed = self.placed(params)
            terms = self._loading_terms[key] = tuple(loading_terms(self.gguf, placed.weights, params))
        return terms


def predict_weights(gguf: GGUFFile, params: Params | None = None) -> tuple[Term, ...]:
    """The terms of model_bytes alone, which need no rule for the architecture.

    Raises:
        UnsupportedError: a tensor has a type whose size is not known.
        GGUFError: it cannot have so many layers.
        ValueError: see `predict_memory`.
    """
    params = params or Params()
    key = f"{gguf.architecture}.block_count"
    n_layer = gguf.get_int(key, 0)
    if not 0 <= n_layer <= MOST_LAYERS:
        raise GGUFError(f"{gguf.location}: key {key!r} is {n_layer:,}, expected at most {MOST_LAYERS:,}")
    placement = place_layers(params, n_layer)
    return weight_terms(gguf, place_weights(gguf, params, placement, host.cpu_features()), no_alloc=params.no_alloc)


def _notes(
    params: Params, context: ContextParams, placement: Placement, weights: Sequence[Term], n_ctx_train: int
) -> Iterator[str]:
    if beyond := beyond_training(params, context.n_ctx_seq, n_ctx_train):
        yield beyond
    if params.use_mlock:
        locked = process_memory(weights, use_mlock=True).locked_bytes
        yield (
            f"{locked:,} bytes are to be locked: where that is more than the limit (ulimit -l), llama.cpp says so and "
            "runs on unlocked"
        )
    if not params.devices and params.n_gpu_layers > 0:
        yield f"no device to offload {params.n_gpu_layers} layers to: everything lies on the host (see --device)"
    if divides_unknown_memory(params, placement.devices):
        yield (
            "the devices' free memory is not known, by which llama.cpp divides the layers: equal shares assumed (say "
            "it with --device NAME=24GiB, or give --tensor-split)"
        )
    if not (context.flash_attn or context.v_trans):
        yield (
            "llama.cpp will turn flash attention off: some layer's attention would run on another device than the "
            "layer (--flash-attn on keeps it)"
        )
    unproven = [name for name, backend in placement.backends.items() if not backend.proven]
    if unproven:
        yield (
            f"sizes on {', '.join(unproven)} follow the backend's source; the tests compare with llama.cpp on the CPU "
            "and on RPC workers only"
        )


__all__ = [
    "DeviceMemory",
    "HParams",
    "MemoryPrediction",
    "Predictor",
    "ProcessMemory",
    "ProcessPhase",
    "predict_memory",
    "predict_weights",
]
