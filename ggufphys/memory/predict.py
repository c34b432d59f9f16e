"""What will this model cost in memory, run like this? All quantities together, each with its evidence."""

from collections.abc import Hashable, Iterator
from typing import Final

from ggufphys.arch import ArchRule
from ggufphys.arch.caches import FullKV
from ggufphys.builds.moves import Rule, rules_of
from ggufphys.builds.proven import require_known, why_unproven
from ggufphys.context import ContextParams
from ggufphys.errors import GGUFError
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.file import require_file
from ggufphys.graph.devices.placed import what_places
from ggufphys.graph.devices.placement import place_layers, place_weights
from ggufphys.graph.devices.runs import Run
from ggufphys.hparams.hparams import HParams
from ggufphys.machine import host
from ggufphys.memory.compute import compute_basis, compute_terms, output_terms
from ggufphys.memory.context import CachesByDevice, caches_by_device
from ggufphys.memory.judged import JudgedRuns
from ggufphys.memory.loading import kept_by_malloc, loading_terms
from ggufphys.memory.notes import notes_on
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.process import Conditions, Loading, Standing, process_terms, standing_terms, what_stands
from ggufphys.memory.terms import Basis, Quantity, Term
from ggufphys.memory.weights import weight_terms
from ggufphys.params import Params, params_or_default

MOST_LAYERS: Final = 1 << 16  # llama.cpp 0c1e570 src/llama-hparams.h has room for 512, a later one perhaps for more
NO_ROW: Final = "its architecture has no rule here; a graph of the usual shape stands for it"


def predict_memory(
    gguf: GGUFFile,
    params: Params | None = None,
    *,
    base_bytes: int | None = None,
    base_file_bytes: int | None = None,
    n_prompt: int | None = None,
    n_batch: int | None = None,
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
        n_batch: for process_bytes: tokens of the largest pass so far; None for the prompt, or a physical batch of it.
        n_sampled: for process_bytes: sequences that a token was ever chosen for; None for all.
        force: predict for a file that llama.cpp would not load, too; all of `basis` is then "refused".

    Raises:
        TypeError: an argument of another kind, such as a path.
        UnsupportedError: the file is no model, or its architecture has no rule yet or is not known to the build.
        RefusedError: llama.cpp would not load the file; it holds the reasons.
        GGUFError: a key or a tensor that the prediction needs is missing or malformed.
        ValueError: llama.cpp would refuse the parameters; the message gives its reason.
    """
    require_file(gguf)
    params = params_or_default(params)
    require_known(gguf.architecture, params.llama_build)
    conditions = Conditions(
        base_bytes=base_bytes,
        base_file_bytes=base_file_bytes,
        n_prompt=n_prompt,
        n_batch=n_batch,
        n_sampled=n_sampled,
    )
    return Predictor(gguf, force=force).predict(params, conditions)


class Predictor(JudgedRuns):
    """Predictions for one file, run in different ways: what all of them share is worked out once.

    Raises:
        RefusedError: llama.cpp would not load the file, and nothing is forced; it holds the reasons.
    """

    def __init__(
        self,
        gguf: GGUFFile,
        target: GGUFFile | None = None,
        *,
        force: bool = False,
        guessed: tuple[ArchRule, HParams] | None = None,
    ) -> None:
        """See `JudgedRuns`."""
        super().__init__(gguf, target, force=force, guessed=guessed)
        self._weight_terms: dict[Hashable, tuple[Term, ...]] = {}
        self._caches: dict[Hashable, CachesByDevice] = {}
        self._empty_rows: dict[frozenset[Rule], bool] = {}
        self._loading: dict[Hashable, Loading] = {}
        self._standing: dict[Hashable, Standing] = {}

    def predict(self, params: Params, conditions: Conditions | None = None) -> MemoryPrediction:
        """What `predict_memory` says."""
        with self.judged(params) as taken:
            return self._predict(taken, conditions or Conditions())

    def buffers(self, params: Params) -> tuple[Term, ...]:
        """The terms of llama.cpp's buffers alone, without the process around them. Raises what `predict` does."""
        with self.judged(params) as taken:
            return self._buffers(taken, self._run(taken))

    def _run(self, params: Params) -> Run:
        if not params.no_alloc and params.ctx_type == "default" and self._keeps_empty_rows(params):
            raise ValueError(
                "llama.cpp fails to allocate a KV cache whose layers have no heads for keys and values (head_count_kv)"
            )
        return self.run(params)

    def _buffers(self, params: Params, run: Run) -> tuple[Term, ...]:
        return (
            *self.weight_terms(params),
            *self.caches(params).terms(run.context),
            *compute_terms(run.layouts, run.context, run.placed),
            *output_terms(self.h, run.context, run.placed.placement),
        )

    def _predict(self, params: Params, conditions: Conditions) -> MemoryPrediction:
        run = self._run(params)
        context, placed = run.context, run.placed
        buffers = self._buffers(params, run)
        process = process_terms(
            run.layouts, params, context, buffers, placed, conditions, self._stand(params, context, conditions),
            self.loading(params),
        )  # fmt: skip
        pools = context.pooling != "none"
        why_not = NO_ROW if self.is_guess else why_unproven(self.h.arch, params.llama_build, pools=pools)
        proven: Basis = "exact" if placed.is_proven and not why_not else "estimate"
        basis: dict[Quantity, Basis] = {
            "model": proven,
            "context": proven,
            "compute": proven if compute_basis(self.h.arch, context.ctx_type) == "exact" else "estimate",
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
                *notes_on(params, context, placed.placement, self.weight_terms(params), self.h.n_ctx_train),
                *self._deaths(params),
                *((f"for llama.cpp b{params.llama_build} an estimate: {why_not}",) if why_not else ()),
            ),
            refusals=self.refusals,
        )

    def _deaths(self, params: Params) -> Iterator[str]:
        """What such a context dies of at its first batch, though it is made."""
        if params.ctx_type == "default":
            rule = self.rule_in(params)
            of_embeddings = rule.aborts_embedding(self.h) if params.embeddings else ""
            yield from filter(None, (rule.dies_at_first_batch(self.h), of_embeddings))

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

    def loading(self, params: Params) -> Loading:
        """What is held while weights are loaded, and what of that the heap keeps."""
        key = what_places(params)
        found = self._loading.get(key)
        if found is None:
            weights = self.placed(params).weights
            found = self._loading[key] = Loading(
                tuple(loading_terms(self.gguf, weights, params)), kept_by_malloc(weights, params)
            )
        return found

    def _stand(self, params: Params, context: ContextParams, conditions: Conditions) -> Standing:
        key = what_stands(params, context, conditions)
        found = self._standing.get(key)
        if found is None:
            found = self._standing[key] = standing_terms(self.gguf, self.h.n_vocab, params, context, conditions)
        return found


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
