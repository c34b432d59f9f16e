"""`ggufphys serve`: flags to a running server, and signals to its orderly end."""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ggufphys import GGUFPhysError, MemoryPrediction, embedded
from ggufphys.builds.asked import installed_build
from ggufphys.flags.environment import MODEL
from ggufphys.flags.run import params_from
from ggufphys.gguf.locate import local_path
from ggufphys.memory.context import beyond_training
from ggufphys.params import Params
from ggufphys.speed import history
from server.adapter_flags import adapters_of
from server.app import create_app, service_of
from server.beforehand import (
    device_lines,
    fits,
    host_memory,
    listening_json,
    predicted_rates,
    prediction,
    prediction_line,
    resident_bytes,
    too_large,
    unwise,
)
from server.defaults import check_defaults
from server.ending import WAKE_S, Watch, drain
from server.engine.adapters import check_adapter
from server.engine.checks import check_context, check_model_file, check_serves, one_output_per_sequence
from server.engine.crash import FileStamp
from server.engine.devices import probe
from server.engine.errors import EngineError
from server.engine.guessing import Guessing
from server.engine.llama import LlamaEngine
from server.engine.log import LOG
from server.engine.numpy_engine import (
    Hold,
    Load,
    NumpyEngine,
    NumpyModel,
    Predict,
    check_params,
    load_options,
    without_effect,
)
from server.engine.protocol import Adapter, EngineStatus
from server.engine.supervised import SupervisedEngine
from server.engine.threaded import BaseEngine
from server.engine.waiting import late_share, thread_times
from server.flags import config_of, overlooked, say, stall_bounds
from server.footprint import find, http_bytes, share_heap
from server.forecast import Rates
from server.growth import growth_of, nothing
from server.guess_flags import draft_opened, drafts_warnings, guessing_of, named_draft, with_rows
from server.http import HttpServer, listening
from server.journal import open_journal, warn
from server.keys import reload_keys
from server.ledger import Ledger, Pids
from server.pasted import refused
from server.service import Service
from server.several import are_several, serve_several
from server.signals import Signals
from server.slots import default_slots, describe_slots
from server.weights import default_load, describe_load

DISTURBED: Final = 0.10  # of its time that one of the engine's threads had no processor
HOLD: Final[Hold] = "f32"  # as fast as numpy gets
SWITCH_INTERVAL_S: Final = 0.0005  # so that an HTTP thread at work costs the engine's next step 0.5 ms and not 5


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; the exit code, 0.

    Raises:
        GGUFPhysError, ValueError, OSError: it cannot be served; ggufphys/errors.py says which means what.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    LOG.verbose = args.verbose
    refused(args)
    if args.engine != "numpy" and not args.in_process:
        share_heap()
    with ExitStack() as stack:
        stack.callback(open_journal(file=args.log_file, as_json=args.log_jsonl, access=args.access_log))
        return run_several(args) if are_several(args.models) else run_model(args)


def run_several(args: argparse.Namespace) -> int:
    """Serve several models; see `run`."""
    if args.engine == "numpy" or args.in_process:
        raise ValueError("several models are each a process of llama.cpp's: without --engine numpy and --in-process")
    if args.alias:
        raise ValueError("--alias: several models have the names of -m NAME=FILE")
    params = params_from(args, Params(llama_build=installed_build()), found=lambda: find().devices)
    params = default_slots(params, vars(args))
    config = config_of(args)
    check_defaults(config)
    for warning in (*unwise(args.host, config.api_keys), *overlooked(args)):
        warn(f"warning: {warning}")
    return serve_several(args, params, config)


def run_model(args: argparse.Namespace) -> int:
    """Serve one model; see `run`."""
    path = model_path(args)
    _, hparams = check_model_file(path)
    in_numpy = args.engine == "numpy"
    params = params_from(
        args, Params(llama_build=installed_build()), found=None if in_numpy else lambda: find().devices
    )
    if not in_numpy:
        params = default_slots(params, vars(args))
    if not in_numpy and not args.in_process:  # there nothing is gathered into larger pages
        params = default_load(params, vars(args), path)
    params = one_output_per_sequence(with_rows(params, args))
    if not in_numpy:
        check_model_file(path, params)
    made = check_context(params, hparams)
    if in_numpy:
        check_params(params)
    refuse_for_engine(args)
    adapters = adapters_of(args)
    for adapter in adapters:
        check_adapter(adapter.path, path)
    config = config_of(args)
    check_defaults(config)
    beyond = beyond_training(params, made.n_ctx_seq, hparams.n_ctx_train)
    for warning in (
        *unwise(args.host, config.api_keys),
        *([beyond] if beyond else []),
        *(without_effect(params) if in_numpy else ()),
        *overlooked(args),
    ):
        warn(f"warning: {warning}")
    if args.in_process and not in_numpy:
        warn(
            "note: --in-process: nothing watches over grammars here, and one that is followed for hours holds all "
            "requests; without it the engine's process is ended after 10 s"
        )
    with draft_opened(args, lambda: find().devices) as draft:
        guessing = guessing_of(args, draft, params, made)
        for warning in drafts_warnings(guessing, draft, made):
            warn(f"warning: {warning}")
        predicted: MemoryPrediction | str
        if in_numpy:
            model, predicted = open_numpy(args, path, params)
        else:
            model = None
            predicted = prediction(path, params, None if args.in_process else find(), adapters, draft)
        n_slots = params.n_seq_max
        tell(args, prediction_line(predicted, 0 if in_numpy or args.in_process else http_side_bytes(n_slots)))
        for line in device_lines(predicted):
            tell(args, line)
        for device in params.devices:
            if device.endpoint:
                probe(device.endpoint)  # llama.cpp would end its process
        if not isinstance(predicted, str):
            refusal, tight = fits(predicted, host_memory())
            if not refusal and not in_numpy and not args.oversized:
                refusal = too_large(path, params, predicted, adapters, draft)
            if refusal:
                raise GGUFPhysError(refusal)
            if tight:
                warn(f"warning: {tight}")
        if not in_numpy:
            check_serves(path)
    with ExitStack() as stack:
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        signals = stack.enter_context(Signals())
        stamps = [FileStamp.of(each) for each in (str(path), *([guessing.draft.path] if guessing.draft else []))]
        engine = opened_engine(args, model or path, params, adapters, guessing)
        stack.callback(engine.close)
        ledger = Ledger(
            predicted=predicted, base_bytes=resident_bytes(), pids=Pids(engine),
            growth=nothing if in_numpy else growth_of(path, params),
        )  # fmt: skip
        rates = "" if in_numpy else predicted_rates(path, params)
        if why := rates if isinstance(rates, str) else "":
            warn(f"note: no speed is predicted: {why}")
        app = create_app(config, engine, ledger, rates if isinstance(rates, Rates) else None)
        http = stack.enter_context(
            listening(
                app,
                host=args.host,
                port=args.port,
                max_streams=args.max_queue + n_slots,
                max_body_bytes=config.max_body_bytes,
            )
        )
        unknown = "; no speed is predicted, for the reason above" if why else ""
        how = "; ".join(filter(None, (describe_slots(made, vars(args)), describe_load(params, vars(args)))))
        tell(args, f"{', '.join(http.urls)} serves {path}; {how}{unknown}; Ctrl-C ends it")
        if args.json:
            say(listening_json(http.url, path, predicted))
        service = service_of(app)

        def read_again() -> None:
            if args.api_key_file is not None:
                reload_keys([service.keys], args.api_key, args.api_key_file)

        code = serve(
            engine, service, http, signals, drain_timeout_s=args.drain_timeout, read_again=read_again, stamps=stamps
        )
        remember(service, path, params)
        return code


def refuse_for_engine(args: argparse.Namespace) -> None:
    """Raises ValueError: a flag is not for the engine that is asked for."""
    if args.engine != "numpy":
        if args.hold:
            raise ValueError("--hold: llama.cpp holds weights in its own way; it is for --engine numpy")
        return
    if args.adapters:
        raise ValueError("--lora: not with the numpy engine; take --engine llama.cpp")
    if args.spec_type or named_draft(args):
        raise ValueError("--spec-type, --model-draft: not with the numpy engine; take --engine llama.cpp")


def opened_engine(
    args: argparse.Namespace, model: Path | NumpyModel, params: Params, adapters: Sequence[Adapter], guessing: Guessing
) -> BaseEngine:
    """The engine that flags ask for: of a model in numpy, or of a file in llama.cpp, here or in a worker process."""
    options = {"name": next(iter(args.alias), ""), "max_waiting": args.max_queue, "warn": warn}
    if not isinstance(model, Path):
        return NumpyEngine(model, **options)
    of_llama = {"target_s": args.target_itl / 1000, "adapters": adapters, "guessing": guessing, **options}
    if args.in_process:
        return LlamaEngine(model, params, **of_llama)
    return SupervisedEngine(model, params, verbose=args.verbose, bounds=stall_bounds(args), **of_llama)


def http_side_bytes(n_streams: int) -> int:
    """What this process will hold while it serves so many answers at once: it, its threads, and their requests."""
    return resident_bytes() + http_bytes(n_streams, n_streams)


def tell(args: argparse.Namespace, line: str) -> None:
    """A line for the user, on stderr where stdout is for a document."""
    (warn if args.json else say)(line)


def open_numpy(args: argparse.Namespace, path: Path, params: Params) -> tuple[NumpyModel, MemoryPrediction]:
    """The model in numpy, nothing of it computed yet, and its memory after a prompt of one physical batch.

    Raises as `refengine.load`, or as its tokenizer does.
    """
    room = importlib.import_module(args.numpy_room)  # beside this one: the console script names it
    load: Load = room.load
    predict: Predict = room.predict_footprint
    base_bytes = resident_bytes()
    model = load(path, **load_options(params, args.hold or HOLD))
    assert model.tokenizer  # what cannot be tokenised is told before anybody connects
    n_prompt = max(1, min(model.context.n_ubatch, model.context.n_ctx_seq - 1))
    return model, predict(model, n_prompt=n_prompt, base_bytes=base_bytes)


def serve(
    engine: BaseEngine,
    service: Service,
    http: HttpServer,
    signals: Signals,
    *,
    drain_timeout_s: float,
    read_again: Callable[[], None],
    stamps: list[FileStamp],
) -> int:
    """Wait for the end: a load that failed, or a signal and what was in flight behind it."""
    watch = Watch()
    while not signals.received.wait(WAKE_S):
        watch.look(stamps)
        if signals.hung_up.is_set():
            signals.hung_up.clear()
            read_again()
        if engine.status is EngineStatus.FAILED:
            error = engine.error
            assert error is not None
            raise error
        if engine.status is EngineStatus.CLOSED:
            raise EngineError("the engine's thread has ended without a reason: a bug of ours")
    drain([service], http, drain_timeout_s)
    return 0


def remember(service: Service, path: Path, params: Params) -> None:
    """Add to this machine's history how right the predicted speed was, for `inspect` to say.

    Where others had the processors for much of the time that says nothing about the prediction.
    """
    rates = service.engine.forecast.lone_rates
    if rates is not None and late_share(thread_times(getattr(service.engine, "pid", None))) <= DISTURBED:
        model = f"{path.name}:{path.stat().st_size}"
        history.add([("served decode", *rates)], model=model, build=params.llama_build)


def model_path(args: argparse.Namespace) -> Path:
    """The model that is named, by the command line or else by the environment; the embedded one if none is.

    Raises:
        ValueError: several are.
    """
    given = [*([] if args.model is None else [args.model]), *args.models]  # "" is a variable that was not set
    named = given or [*filter(None, [os.environ.get(MODEL, "")])]
    if len(named) > 1:
        raise ValueError(f"several models are named ({', '.join(named)}): name one")
    return local_path(named[0]) if named else embedded.MODEL
