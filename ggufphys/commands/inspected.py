"""`ggufphys inspect MODEL`: what is in the file, and what will it cost in memory? Each further question dispatches."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from ggufphys.arch import read_hparams
from ggufphys.commands.attached import (
    ATTACHING,
    alone,
    attaches_files,
    predict_here,
    predicting,
    with_server,
)
from ggufphys.commands.costs import costs_sections, speed_sections
from ggufphys.commands.devices import left_notes, over_notes, params_here
from ggufphys.commands.opening import opened
from ggufphys.context import ContextParams
from ggufphys.errors import TruncatedError, UnsupportedError
from ggufphys.flags.others import unread_notes
from ggufphys.frozen import replace
from ggufphys.gguf import SIZES, GGUFFile
from ggufphys.gguf.locate import names_several
from ggufphys.graph.devices.runs import require_model
from ggufphys.loads import RefusedError
from ggufphys.memory.predict import Predictor
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.params import Params
from ggufphys.report.inspection import Inspection, Section, inspect_text
from ggufphys.units import shortened, shown

if TYPE_CHECKING:
    from ggufphys.plan.fits import Fit

_OF_MODELS: Final = ("--assert-fits", "--costs", "--explain", "--quantize")
_APART: Final = (  # a question, what is not asked with it, and why
    (
        "--html", ("several", "--diff", "--log", "--sweep"),
        "--html is the report of one model: name one file, without --diff, --log and --sweep",
    ),
    (
        "--template", ("several", "--html", "--diff", "--log", "--sweep", *_OF_MODELS),
        "--template is a question by itself, about one model",
    ),
    ("several", ("attached",), "adapters, mmproj or a draft model stand beside one model; several are named"),
    (
        "several", ("--explain", "--sweep", "--costs", "--log"),
        "--explain, --sweep, --costs and --log are questions about one model; several are named",
    ),
    ("several", ("--diff",), "--diff compares one model with another: inspect A --diff B"),
    ("--diff", ("--log", "--sweep", *_OF_MODELS), "--diff is a question by itself: ask the others without it"),
    ("--log", ("--sweep", *_OF_MODELS), "--log is a question by itself: ask the others without it"),
    (
        "--sweep", _OF_MODELS,
        "--sweep asks about many runs; --assert-fits, --explain, --costs and --quantize about one",
    ),
    (
        "lengths", ("several", "--diff", "--log", "--sweep", "--template"),
        "--prefill, --depth, --batch and --budget are about one run of one model, whose speed is predicted",
    ),
)  # fmt: skip
# Flags that mean something for a file that is no model, of any kind, of one kind; and those that only models answer.
_OF_FILES: Final = frozenset((
    "-m", "-mu", "-hf", "--json", "--html", "--no-cache", "--quantize", "--imatrix", "--allow-requantize",
    "--leave-output-tensor", "--pure", "--output-tensor-type", "--token-embedding-type", "--tensor-type",
))  # fmt: skip
_ALONE: Final = {"mmproj": ("--image-max-tokens", "--mtmd-batch-max-tokens")}
_OF_RUNS: Final = (
    "--assert-fits", "--explain", "--costs", "--prefill", "--depth", "--batch", "--budget", "--on", *ATTACHING,
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the report. Files that are no model are described without a prediction.

    A file that llama.cpp would not load is described, with the reasons, and the exit code is 3. For an architecture
    without a rule there is an estimate, and the exit code is 4 unless llama.cpp may know it (`commands.guess`).
    """
    if args.on == "list":
        from ggufphys.report.published import machines_json, machines_text  # when it is asked for

        print(machines_json() if args.json else machines_text())
        return 0
    limit = None
    if args.assert_fits is not None:
        from ggufphys.plan.fits import memory_limit  # here and below: what other questions do not need

        limit = memory_limit(args.assert_fits)
    asked = _asked(args)
    for question, others, why in _APART:
        if question in asked and not asked.isdisjoint(others):
            raise ValueError(why)
    if "--template" in asked:
        from ggufphys.commands.template import run_template

        return run_template(args)
    if "several" in asked:
        from ggufphys.commands.folder import run_folder

        return run_folder(args, limit)
    if "--diff" in asked:
        from ggufphys.commands.diff import run_diff

        return run_diff(args)
    if "--log" in asked:
        from ggufphys.commands.log import run_log

        return run_log(args)
    if "--sweep" in asked:
        from ggufphys.commands.sweep import run_sweep

        return run_sweep(args)
    return _run_model(args, limit)


def _asked(args: argparse.Namespace) -> frozenset[str]:
    """The questions of a command line, by their flags; "several" files, and "attached" ones."""
    questions = {
        "--assert-fits": args.assert_fits is not None, "--costs": args.costs, "--diff": args.diff is not None,
        "--explain": args.explain, "--html": args.html is not None, "--log": args.log is not None,
        "--quantize": args.quantize is not None, "--sweep": args.sweep is not None, "--template": args.template,
        "several": not hasattr(args, "models") or names_several(args.models), "attached": attaches_files(args),
        "lengths": any(getattr(args, name) is not None for name in ("prefill", "depth", "batch", "budget")),
    }  # fmt: skip
    return frozenset(name for name, is_asked in questions.items() if is_asked)


def _run_model(args: argparse.Namespace, limit: int | None) -> int:
    """The report of one model."""
    params, notes = params_here(args)
    params = with_server(args, params)
    show = _shower(args)
    with _opened(args) as gguf:
        sections: tuple[Section, ...] = ()
        if args.quantize is not None:
            from ggufphys.commands.quantize import quantized_sections

            sections = quantized_sections(args, gguf, params)
        try:
            require_model(gguf)
        except UnsupportedError as error:
            return _print_alone(args, gguf, sections, error, show)
        known = Inspection(gguf=gguf, notes=notes, sections=sections)
        try:
            prediction = predict_here(args, gguf, params)
        except RefusedError as error:
            if not str(error).startswith(f"{gguf.location}:"):  # it is about the draft
                raise
            return _print_refused(known, error, show)
        except UnsupportedError as error:
            from ggufphys.commands.guess import run_guess  # what nearly no file needs

            return run_guess(args, known, params, error, show)
        notes = (*notes, *_template_notes(gguf, params), *_cache_notes(gguf, prediction.context))
        notes = (*notes, *over_notes(params, prediction), *left_notes(gguf, params))
        costs = (*speed_sections(args, gguf, params), *costs_sections(args, gguf, params))
        sections = (*costs, *sections)
        if args.explain:
            from ggufphys.commands.explain import explained_section

            sections = (explained_section(args, gguf, params, prediction), *sections)
        verdicts: tuple[Fit, ...] = ()
        if limit is not None:
            from ggufphys.plan.fits import fits

            verdicts = fits(prediction, limit)
        sections = (*sections, *_would_fit(args, gguf, params, prediction, verdicts))
        found = Inspection(
            gguf=gguf, params=params, prediction=prediction, fits=verdicts, notes=notes, sections=sections,
            refusals=prediction.refusals,
        )  # fmt: skip
        print(show(found))
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def _print_alone(
    args: argparse.Namespace,
    gguf: GGUFFile,
    sections: tuple[Section, ...],
    error: UnsupportedError,
    show: Callable[[Inspection], str],
) -> int:
    """The report of a file that cannot be run by itself; raises UnsupportedError: what was asked is about runs."""
    terms, said = alone(args, gguf, str(error))
    asked = " and ".join(flag for flag in args.flags_given if flag in _OF_RUNS)
    said = (*said, *unread_notes(args, {*_OF_FILES, *_OF_RUNS, *_ALONE.get(gguf.kind, ())}))
    print(show(Inspection(gguf=gguf, attachment=terms, notes=said, sections=sections)))
    if asked:
        raise UnsupportedError(f"{error}: {asked}: for models that can") from None
    return 0


def _print_refused(known: Inspection, error: RefusedError, show: Callable[[Inspection], str]) -> int:
    """The report of a model that llama.cpp would not load; exit code 3."""
    from ggufphys.report.loads import summary  # what few files need

    print(show(replace(known, refusals=error.refusals)))
    print(f"ggufphys: error: {shown(shortened(summary(known.gguf, error.refusals)))}", file=sys.stderr)
    return 3


def _shower(args: argparse.Namespace) -> Callable[[Inspection], str]:
    """What makes the report's text."""
    if args.html is None:
        if not args.json:
            return inspect_text
        from ggufphys.report.inspection_json import inspect_json

        return inspect_json
    from ggufphys.commands.page import shower  # what other reports do not need

    return shower(args)


def _template_notes(gguf: GGUFFile, params: Params) -> tuple[str, ...]:
    """What llama-server does with chats when the file does not say how they are written.

    Source: llama.cpp 0c1e570 common/chat.cpp, common_chat_templates_init.
    """
    has_vocabulary = "tokenizer.ggml.tokens" in gguf.metadata
    template = gguf.get_str("tokenizer.chat_template", "") or gguf.get_str("tokenizer.chat_template.tool_use", "")
    if params.run_as == "library" or not has_vocabulary or template:
        return ()
    return (
        "no chat template: llama-server writes chats as ChatML, which the model may never have seen; "
        "--chat-template names another",
    )


def _cache_notes(gguf: GGUFFile, context: ContextParams) -> tuple[str, ...]:
    """What serve refuses and llama.cpp runs all the same: heads that begin within a block of a quantised K cache.

    Source: llama.cpp 0c1e570 src/llama-kv-cache.cpp, get_k; ggml/src/ggml.c, ggml_row_size, whose assert releases lack.
    """
    block_size = SIZES[context.type_k].block_size
    n_embd_head = read_hparams(gguf).n_embd_head_k if block_size > 1 and not context.flash_attn else 0
    if n_embd_head % block_size == 0:
        return ()
    return (
        f"K in {context.type_k.name.lower()}, blocks of {block_size}: heads of {n_embd_head} begin within one, and "
        "without flash attention llama.cpp reads them wrongly; `ggufphys serve` refuses it",
    )


def _would_fit(
    args: argparse.Namespace, gguf: GGUFFile, params: Params, prediction: MemoryPrediction, verdicts: "Sequence[Fit]"
) -> tuple[Section, ...]:
    """What would make it fit into main memory, when it does not."""
    if all(verdict.holds for verdict in verdicts):
        return ()
    from ggufphys.plan.prices import cheapest_change  # when it does not fit alone
    from ggufphys.report.fit import would_fit_section

    with predicting(args, Predictor(gguf, force=args.force)) as predict:
        change = cheapest_change(predict, params, prediction.context.n_ctx, verdicts[0].memory_bytes)
    return (would_fit_section(change),)


@contextmanager
def _opened(args: argparse.Namespace) -> Iterator[GGUFFile]:
    """The model; what is known of one whose header ends too early is said before the error goes on."""
    with ExitStack() as stack:
        try:
            gguf = stack.enter_context(opened(args.models[0], use_cache=args.use_cache))
        except TruncatedError as error:
            if error.metadata:
                from ggufphys.report.cut_off import cut_off_json, cut_off_text

                print(cut_off_json(args.models[0], error) if args.json else cut_off_text(args.models[0], error))
            raise
        yield gguf
