"""`ggufphys serve`: flags to a running server, and signals to its orderly end."""

import argparse
import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ggufphys.builds.asked import installed_build
from ggufphys.flags.run import params_from
from ggufphys.params import Params
from ggufphys.speed import history
from server.access.keys import reload_keys
from server.accounts.footprint import find, share_heap
from server.accounts.forecast import Rates
from server.accounts.growth import growth_of, nothing
from server.accounts.ledger import Ledger, Pids
from server.app import create_app, service_of
from server.engine.crash import FileStamp
from server.engine.errors import EngineError
from server.engine.llama import LlamaEngine
from server.engine.log import LOG
from server.engine.numpy_engine import NumpyEngine
from server.engine.protocol import EngineStatus
from server.engine.supervised import SupervisedEngine
from server.engine.threaded import BaseEngine
from server.engine.waiting import late_share, thread_times
from server.flags.hub import hub_reference
from server.flags.pasted import refused
from server.flags.serve import config_of, overlooked, say, stall_bounds
from server.journal import open_journal, warn
from server.left_open.slots import default_slots, describe_slots
from server.left_open.vectors import describe_vectors
from server.left_open.weights import describe_load
from server.net.http import HttpServer, listening
from server.service import Service
from server.start.asked import Asked, asked_model, warnings
from server.start.beforehand import listening_json, predicted_rates, resident_bytes, unwise
from server.start.defaults import check_defaults
from server.start.ending import WAKE_S, Watch, drain
from server.start.planned import Planned, planned_model, tell
from server.start.several import are_several, serve_several
from server.start.signals import Signals

DISTURBED: Final = 0.10  # of its time that one of the engine's threads had no processor
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
    if hub_reference(args) is not None:
        raise ValueError("--hf-repo names one model; beside others it is -m NAME=hf:OWNER/REPO")
    params = params_from(args, Params(llama_build=installed_build()), found=lambda: find().devices)
    params = default_slots(params, vars(args))
    config = config_of(args)
    check_defaults(config)
    for warning in (*unwise(args.host, config.api_keys), *overlooked(args)):
        warn(f"warning: {warning}")
    return serve_several(args, params, config)


def run_model(args: argparse.Namespace) -> int:
    """Serve one model; see `run`."""
    asked = asked_model(args)
    for warning in warnings(args, asked):
        warn(warning)
    return serve_model(args, asked, planned_model(args, asked))


def serve_model(args: argparse.Namespace, asked: Asked, planned: Planned) -> int:
    """Load it, listen, and serve until a signal; see `run`."""
    path, params = asked.path, asked.params
    with ExitStack() as stack:
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        signals = stack.enter_context(Signals())
        draft = planned.guessing.draft
        stamps = [FileStamp.of(each) for each in (str(path), *([draft.path] if draft else []))]
        engine = opened_engine(args, asked, planned)
        stack.callback(engine.close)
        ledger = Ledger(
            predicted=planned.predicted, base_bytes=resident_bytes(), pids=Pids(engine),
            growth=nothing if asked.in_numpy else growth_of(path, params),
        )  # fmt: skip
        rates = "" if asked.in_numpy or params.embeddings else predicted_rates(path, params)
        if why := rates if isinstance(rates, str) else "":
            warn(f"note: no speed is predicted: {why}")
        app = create_app(asked.config, engine, ledger, rates if isinstance(rates, Rates) else None)
        http = stack.enter_context(
            listening(
                app,
                host=args.host,
                port=args.port,
                max_streams=args.max_queue + params.n_seq_max,
                max_body_bytes=asked.config.max_body_bytes,
            )
        )
        unknown = "; no speed is predicted, for the reason above" if why else ""
        if params.embeddings:
            what = describe_vectors(asked.made, params, asked.hparams)
        else:
            what = describe_slots(asked.made, vars(args), asked.block)
        how = "; ".join(filter(None, (what, describe_load(params, vars(args)))))
        tell(args, f"{', '.join(http.urls)} serves {path}; {how}{unknown}; Ctrl-C ends it")
        if args.json:
            say(listening_json(http.url, path, planned.predicted))
        service = service_of(app)

        def read_again() -> None:
            if args.api_key_file is not None:
                reload_keys([service.keys], args.api_key, args.api_key_file)

        code = serve(
            engine, service, http, signals, drain_timeout_s=args.drain_timeout, read_again=read_again, stamps=stamps
        )
        remember(service, path, params)
        return code


def opened_engine(args: argparse.Namespace, asked: Asked, planned: Planned) -> BaseEngine:
    """The engine that flags ask for: of a model in numpy, or of a file in llama.cpp, here or in a worker process."""
    options = {"name": next(iter(args.alias), ""), "max_waiting": args.max_queue, "warn": warn}
    if planned.model is not None:
        pooling = asked.params.pooling
        return NumpyEngine(planned.model, pooling=None if pooling == "model" else pooling, **options)
    of_llama = {
        "target_s": args.target_itl / 1000, "adapters": asked.adapters, "guessing": planned.guessing,
        "block": asked.block, **options,
    }  # fmt: skip
    if asked.in_process:
        return LlamaEngine(asked.path, asked.params, **of_llama)
    return SupervisedEngine(asked.path, asked.params, verbose=args.verbose, bounds=stall_bounds(args), **of_llama)


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
    drain([service], http, drain_timeout_s, [engine])
    return 0


def remember(service: Service, path: Path, params: Params) -> None:
    """Add to this machine's history how right the predicted speed was, for `inspect` to say.

    Where others had the processors for much of the time that says nothing about the prediction.
    """
    rates = service.engine.forecast.lone_rates
    if rates is not None and late_share(thread_times(getattr(service.engine, "pid", None))) <= DISTURBED:
        model = f"{path.name}:{path.stat().st_size}"
        history.add([("served decode", *rates)], model=model, build=params.llama_build)
