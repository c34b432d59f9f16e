"""llama.cpp's flags for what stands beside a model: adapters, mmproj, a draft model.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init.
"""

import argparse
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

from ggufphys.builds.proven import require_known
from ggufphys.commands.opening import opened
from ggufphys.errors import GGUFError, UnsupportedError
from ggufphys.flags.draft import draft_fields, guesses_by_heads
from ggufphys.flags.server import run_as, served
from ggufphys.frozen import replace
from ggufphys.gguf import GGUFFile
from ggufphys.machine import host
from ggufphys.memory.attachments import DRAFT_N_MAX, Attachments, Draft, Heads, Server
from ggufphys.memory.attachments.server import predict_served
from ggufphys.memory.predict import Predictor
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.terms import Term
from ggufphys.params import Params

_FILES: Final = ("lora", "lora_scaled", "control_vector", "control_vector_scaled", "mmproj", "draft_model")
ATTACHING: Final = (
    "--lora",
    "--lora-scaled",
    "--control-vector",
    "--control-vector-scaled",
    "-mm",
    "-md",
)  # their flags


def attaches_files(args: argparse.Namespace) -> bool:
    """Do the flags attach a file, which belongs to one model, or its own heads?"""
    return guesses_by_heads(args) or any(hasattr(args, name) for name in _FILES)


def with_server(args: argparse.Namespace, params: Params, chosen: Collection[str] = ()) -> Params:
    """The parameters as llama-server would have them, unless the library's are asked for; `chosen` ones are fixed."""
    guessed = hasattr(args, "draft_model") or guesses_by_heads(args)
    n_draft = getattr(args, "draft_n_max", DRAFT_N_MAX) if guessed else 0
    return served(args, params, chosen, n_draft=n_draft)


@contextmanager
def attachments_opened(args: argparse.Namespace) -> Iterator[Attachments]:
    """The attachments that flags name, with their files open while the block runs. Raises what `open_model` does."""
    with ExitStack() as stack:

        def files(*names: str) -> tuple[Any, ...]:
            paths = [path for name in names for path in getattr(args, name, ())]
            return tuple(stack.enter_context(opened(path, use_cache=args.use_cache)) for path in paths)

        draft = None
        if hasattr(args, "draft_model"):
            gguf = stack.enter_context(opened(args.draft_model, use_cache=args.use_cache))
            draft = Draft(gguf=gguf, **draft_fields(args))
        mmproj = (args.mmproj,) if hasattr(args, "mmproj") else ()
        yield Attachments(
            loras=files("lora", "lora_scaled"),
            control_vectors=files("control_vector", "control_vector_scaled"),
            mmproj=next((stack.enter_context(opened(path, use_cache=args.use_cache)) for path in mmproj), None),
            draft=draft,
            heads=Heads(**_given(args, "draft_", "type_k", "type_v", "n_max")) if guesses_by_heads(args) else None,
            server=_server(args) if run_as(args) == "server" else None,
            **_given(args, "", "mmproj_offload", "mmproj_device", "image_max_tokens", "batch_max_tokens"),
        )


def predict_here(args: argparse.Namespace, gguf: GGUFFile, params: Params) -> MemoryPrediction:
    """The model's prediction, with all that flags attach to it. Raises what `predict_attached` does."""
    require_known(gguf.architecture, params.llama_build)
    with predicting(args, Predictor(gguf, force=args.force)) as predict:
        return predict(params)


@contextmanager
def predicting(args: argparse.Namespace, predictor: Predictor) -> Iterator[Callable[[Params], MemoryPrediction]]:
    """Predictions of one model run in different ways, while the block runs.

    Each has all that flags attach to it, what llama-server may take later, and the context that its --fit makes.
    """
    with ExitStack() as stack:
        predict: Callable[[Params], MemoryPrediction] = predictor.predict
        if attaches_files(args):
            from ggufphys.memory.attachments.predict import predict_attached  # 10 ms that others do not need
            from ggufphys.memory.attachments.tongues import check_tongues

            attachments = stack.enter_context(attachments_opened(args))
            if attachments.draft is not None and not args.force:
                check_tongues(attachments.draft.gguf, predictor.gguf)
            predict = partial(predict_attached, predictor.gguf, attachments=attachments, predictor=predictor)
        elif run_as(args) == "server":
            predict = partial(predict_served, predictor, _server(args))
        yield partial(_fitted, args, predictor, predict)


def _fitted(
    args: argparse.Namespace, predictor: Predictor, predict: Callable[[Params], MemoryPrediction], params: Params
) -> MemoryPrediction:
    """Predict with the context that llama-server takes on this machine when nobody asks for one."""
    if params.n_ctx or not params.fit_params or hasattr(args, "n_ctx"):  # -c 0 asks for all that was trained
        return predict(params)
    from ggufphys.plan.server_fit import FIT_CTX, MARGIN_BYTES, fitted  # what is asked for is not fitted

    made = fitted(
        predictor.buffers,
        params,
        n_ctx_train=predictor.h.n_ctx_train,
        n_layer=predictor.h.n_layer,
        n_expert=predictor.h.n_expert,
        main_bytes=host.main_memory().total_bytes,
        n_ctx_min=getattr(args, "fit_ctx", FIT_CTX),
        margins=getattr(args, "fit_target", (MARGIN_BYTES,)),
    )
    prediction = predict(made.params)
    return replace(prediction, notes=(*prediction.notes, made.note)) if made.note else prediction


def alone(args: argparse.Namespace, gguf: GGUFFile, why: str) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """What a file that is no model takes beside one, as far as that follows from it, and notes: `why` it is none."""
    from ggufphys.memory.attachments.lora import lora_terms
    from ggufphys.memory.attachments.mmproj import mmproj_terms

    try:
        if gguf.kind == "adapter":
            with_model = f"as on the CPU; with its model: ggufphys inspect MODEL --lora {gguf.location}"
            return lora_terms(gguf), (why, with_model)
        if gguf.kind == "mmproj":
            return mmproj_terms(gguf, **_given(args, "", "image_max_tokens", "batch_max_tokens")), (why,)
    except (GGUFError, UnsupportedError, ValueError) as error:  # the file is described all the same
        return (), (why, str(error))
    return (), (why,)


def _server(args: argparse.Namespace) -> Server:
    return Server(**_given(args, "", "cache_ram_mib", "n_ctx_checkpoints"))


def _given(args: argparse.Namespace, prefix: str, *names: str) -> dict[str, Any]:
    return {name: getattr(args, prefix + name) for name in names if hasattr(args, prefix + name)}
