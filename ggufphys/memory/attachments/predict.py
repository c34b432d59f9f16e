"""What will a model cost with all that stands beside it? The model's own prediction, and terms for the rest.

Attachments' buffers are terms of attachment_bytes, in the totals; ceilings are in none.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ggufphys.arch import read_hparams, rule_for
from ggufphys.context import ContextParams
from ggufphys.frozen import replace
from ggufphys.gguf import GGUFFile
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.devices.placed import Placed
from ggufphys.loads.graphs import graph_failures
from ggufphys.memory.attachments import Attachments, Draft
from ggufphys.memory.attachments.control_vector import check_control_vector, control_vector_terms
from ggufphys.memory.attachments.guessing import as_guessed, heads_params, states_read
from ggufphys.memory.attachments.lora import adapters_of, lora_terms
from ggufphys.memory.attachments.mmproj import mmproj_basis, mmproj_terms
from ggufphys.memory.attachments.server import server_notes, server_terms
from ggufphys.memory.attachments.state import cell_ext_bytes, state_bytes
from ggufphys.memory.compute import compute_terms
from ggufphys.memory.predict import Predictor
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.process import BASE, CODE, VOCABULARY, Conditions, resident
from ggufphys.memory.terms import Basis, Quantity, Term
from ggufphys.memory.vocabulary import UNICODE_TABLE_BYTES
from ggufphys.params import HOST, Params

_OF_A_DRAFT: Final[frozenset[Quantity]] = frozenset({"model", "context", "compute", "output"})
_CACHE_SOURCES: Final = ("src/llama-kv-cache", "src/llama-memory-")  # of the terms of ggufphys/memory/context.py
_ONCE: Final = frozenset({*BASE.values(), CODE})  # however many models


def predict_attached(
    gguf: GGUFFile,
    params: Params,
    attachments: Attachments,
    *,
    base_bytes: int | None = None,
    base_file_bytes: int | None = None,
    predictor: Predictor | None = None,
) -> MemoryPrediction:
    """Predict a model with its attachments; see `predict_memory` for the arguments and errors they share.

    `predictor` is the model's own, where one is at hand.

    Raises:
        ValueError: an attached file is something else, or llama.cpp would refuse it for this model.
        UnsupportedError, GGUFError: an attached file is of an unknown architecture or projector, or lacks something.
    """
    predictor = predictor or Predictor(gguf)
    params = as_guessed(params, attachments)
    base = predictor.predict(params, Conditions(base_bytes=base_bytes, base_file_bytes=base_file_bytes))
    placed = predictor.placed(params)
    terms = list(base.terms)
    bases: list[Basis] = [base.basis["model"]]
    if attachments.loras:
        terms = _with_adapters(predictor, base, placed, attachments.loras)
        terms += (t for lora in attachments.loras for t in lora_terms(lora, gguf, placed.weights))
    for vector in attachments.control_vectors:
        check_control_vector(vector, predictor.h)
    if attachments.control_vectors:  # their sum is kept, however many
        terms += control_vector_terms(predictor.h, placed.placement)
    if attachments.mmproj is not None:
        device = _encoders_device(attachments, params)
        terms += mmproj_terms(
            attachments.mmproj,
            device=device,
            image_max_tokens=attachments.image_max_tokens,
            batch_max_tokens=attachments.batch_max_tokens,
        )
        bases.append(mmproj_basis(attachments.mmproj) if device == HOST else "estimate")
    draft_states = (0, 0)
    if attachments.draft is not None:
        draft = predict_draft(attachments.draft, params, base.context, gguf)
        terms += _draft_terms(draft)
        bases += [draft.basis[quantity] for quantity in ("model", "context", "compute")]
        draft_states = _draft_states(attachments.draft.gguf, draft.context)
    if attachments.heads is not None:
        heads = predictor.predict(heads_params(attachments.heads, params, base.context))
        terms += _heads_terms(heads)
        bases += [heads.basis[quantity] for quantity in ("context", "compute")]
    terms += states_read(predictor.h, base.context, placed.placement, attachments)
    if attachments.server is not None:
        terms += server_terms(
            attachments.server,
            predictor.h,
            predictor.rule_in(params).layers(predictor.h),
            base.context,
            cell_ext_bytes=cell_ext_bytes(gguf),
            draft_states=draft_states,
        )
    beside = [t for t in terms if t.quantity == "attachment" and t.device == HOST and not _is_drafts(t)]
    terms += map(resident, beside)
    basis: Basis = "exact" if set(bases) == {"exact"} else "estimate"
    devices = {device.name: device for device in params.devices}
    if attachments.draft is not None:
        devices = {**{device.name: device for device in attachments.draft.devices or ()}, **devices}
    return replace(
        base,
        terms=tuple(terms),
        given_devices=tuple(devices.values()),
        basis={**base.basis, "attachment": basis},
        notes=(*base.notes, *(server_notes(attachments.server) if attachments.server is not None else ())),
    )


def predict_draft(
    draft: Draft, params: Params, context: ContextParams, target: GGUFFile | None = None
) -> MemoryPrediction:
    """The draft model's own prediction: a context as long as the model's, one output a sequence, devices alike.

    It may read weights of its `target`, which are counted there.

    """
    own = draft_params(draft, params, context)
    predictor = Predictor(draft.gguf, target)
    if predictor.reads_target:  # caches of the target's types
        own = replace(own, type_k=params.type_k, type_v=params.type_v)
    return predictor.predict(own)


def draft_params(draft: Draft, params: Params, context: ContextParams) -> Params:
    """How a draft is run beside a model that is run with `params`, in a context that came out as `context`.

    Source: llama.cpp 0c1e570 common/speculative.cpp, common_base_params_to_speculative, common_speculative_init_result.
    """
    if draft.devices is not None:
        split_mode = "layer" if len(draft.devices) < 2 else params.split_mode
        params = replace(params, devices=draft.devices, split_mode=split_mode)
    return replace(
        params,
        n_ctx=context.n_ctx,
        type_k=draft.type_k,
        type_v=draft.type_v,
        n_gpu_layers=draft.n_gpu_layers,
        n_threads=draft.n_threads or params.n_threads,
        n_outputs_max=params.n_seq_max,
        override_tensor=draft.override_tensor,
        n_cpu_moe=draft.n_cpu_moe,
    )


def _with_adapters(
    predictor: Predictor, base: MemoryPrediction, placed: Placed, loras: Sequence[GGUFFile]
) -> list[Term]:
    """The model's terms, with the compute buffer as large as the graph with adapters wants, if that is more.

    A buffer is reserved without adapters first, and never shrinks.

    Raises:
        ValueError: ggml would not make the graph.
    """
    layouts = Layouts(predictor.gguf, predictor.h, predictor.rule_in(placed.params), adapters_of(loras))
    for failure in graph_failures(layouts, base.context):
        raise ValueError(f"{', '.join(lora.location for lora in loras)}: llama.cpp loads it, and ends there: {failure}")
    grown = {term.device: term for term in compute_terms(layouts, base.context, placed)}
    terms: list[Term] = []
    for term in base.terms:
        larger = grown.get(term.device) if term.quantity == "compute" else None
        if larger is None or larger.nbytes <= term.nbytes:
            terms.append(term)
            continue
        terms.append(replace(larger, name=f"{larger.name}, with adapters"))
        if term.device == HOST:
            more = larger.nbytes - term.nbytes
            why = f"{larger.nbytes:,} with adapters less {term.nbytes:,} without"
            terms.append(resident(replace(larger, name="compute buffer, adapters", nbytes=more, formula=why)))
    return terms


def _draft_terms(draft: MemoryPrediction) -> Iterator[Term]:
    for term in draft.terms:
        if term.quantity in _OF_A_DRAFT:
            yield replace(term, quantity="attachment", name=f"draft: {term.name}")
        elif term.quantity == "process" and term.name not in _ONCE:
            own = term.nbytes - (UNICODE_TABLE_BYTES if term.name == VOCABULARY else 0)
            yield replace(term, name=f"draft: {term.name}", nbytes=own)


def _heads_terms(heads: MemoryPrediction) -> Iterator[Term]:
    """What the heads' context adds: their weights are the model's."""
    for term in heads.terms:
        if term.quantity in _OF_A_DRAFT and term.quantity != "model":
            yield replace(term, quantity="attachment", name=f"draft: {term.name}")
        elif term.quantity == "process" and term.phase not in ("library", "weights") and term.name not in _ONCE:
            yield replace(term, name=f"draft: {term.name}")


def _encoders_device(attachments: Attachments, params: Params) -> str:
    """Where the encoder lies. Raises ValueError: on a device that the run has not.

    Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init (--mmproj-device), common_params_parse_ex.
    """
    names, wanted = [device.name for device in params.devices], attachments.mmproj_device
    if wanted == "none" or not attachments.mmproj_offload:
        return HOST
    if wanted and wanted not in names:
        found = f"expected one of {', '.join(names)}" if names else "there is no device: name it with --device, too"
        raise ValueError(f"--mmproj-device {wanted}: {found}")
    return wanted or (names[0] if names else HOST)


def draft_context_bytes(terms: Iterable[Term]) -> int:
    """What a draft's cache takes, of a prediction's terms: it has a cell for each of the model's."""
    drafts = (term for term in terms if term.quantity == "attachment" and _is_drafts(term))
    return sum(term.nbytes for term in drafts if term.source.startswith(_CACHE_SOURCES))


def _is_drafts(term: Term) -> bool:
    """Is it the draft's, which has terms of the process of its own?"""
    return term.name.startswith("draft: ")


def _draft_states(gguf: GGUFFile, context: ContextParams) -> tuple[int, int]:
    """A full slot's states of the draft, whole and partial."""
    h = read_hparams(gguf)
    layers, ext = rule_for(h.arch).layers(h, context.ctx_type), cell_ext_bytes(gguf)
    whole, part = (
        state_bytes(layers, context, context.n_ctx_seq, partial=partial, cell_ext_bytes=ext)
        for partial in (False, True)
    )
    return whole, part
