"""`ggufphys serve`: flags to a running server, and signals to its orderly end."""

import argparse
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ggufphys.params import Params
from ggufphys.speed import history
from server.accounts.footprint import share_heap
from server.accounts.forecast import Rates
from server.app import create_app, service_of
from server.engine.errors import EngineError
from server.engine.llama.log import LOG
from server.engine.llama.waiting import late_share, thread_times
from server.engine.loop.threaded import BaseEngine
from server.engine.protocol import EngineStatus
from server.flags.pasted import refused
from server.journal import open_journal, say, warn
from server.left_open.slots import describe_slots
from server.left_open.vectors import describe_vectors
from server.left_open.weights import describe_load
from server.net.http import listening
from server.service import Service
from server.start.asked import Asked, asked_model, model_warnings, warn_of_flags
from server.start.beforehand import listening_json, predicted_rates
from server.start.defaults import checked_config
from server.start.ending import serve_until_signal
from server.start.opened import file_stamps, ledger_of, opened_engine
from server.start.planned import planned_model, tell
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
        return serve_several(args) if are_several(args.models) else serve_model(args)


def serve_model(args: argparse.Namespace) -> int:
    """Serve one model; see `run`."""
    config, asked = checked_config(args), asked_model(args)
    warn_of_flags(args, config)
    for warning in model_warnings(asked):
        warn(f"warning: {warning}")
    planned = planned_model(args, asked)
    path, params = asked.path, asked.params
    with ExitStack() as stack:
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        signals = stack.enter_context(Signals())
        stamps = file_stamps(asked, planned)
        engine = opened_engine(args, asked, planned)
        stack.callback(engine.close)
        rates = "" if asked.in_numpy or params.embeddings else predicted_rates(path, params)
        if why := rates if isinstance(rates, str) else "":
            warn(f"note: no speed is predicted: {why}")
        app = create_app(config, engine, ledger_of(planned, engine), rates if isinstance(rates, Rates) else None)
        http = stack.enter_context(
            listening(
                app,
                host=args.host,
                port=args.port,
                max_streams=args.max_queue + params.n_seq_max,
                max_body_bytes=config.max_body_bytes,
            )
        )
        unknown = "; no speed is predicted, for the reason above" if why else ""
        tell(args, f"{', '.join(http.urls)} serves {path}; {how_it_is_run(args, asked)}{unknown}; Ctrl-C ends it")
        if args.json:
            say(listening_json(http.url, path, planned.predicted))
        service = service_of(app)
        serve_until_signal(
            args, signals, http, [service], [engine], stamps=lambda: stamps, check=lambda: require_alive(engine)
        )
        remember(service, path, params)
    return 0


def how_it_is_run(args: argparse.Namespace, asked: Asked) -> str:
    """What was chosen for the user, and why so, in words."""
    given = vars(args)
    if asked.params.embeddings:
        what = describe_vectors(asked.made, asked.params, asked.hparams)
    else:
        what = describe_slots(asked.made, given, asked.block, alone=asked.in_numpy)
    return "; ".join(filter(None, (what, describe_load(asked.params, given))))


def require_alive(engine: BaseEngine) -> None:
    """Raises what a load failed with, or EngineError: the engine's thread has ended."""
    if engine.status is EngineStatus.FAILED:
        error = engine.error
        assert error is not None
        raise error
    if engine.status is EngineStatus.CLOSED:
        raise EngineError("the engine's thread has ended without a reason: a bug of ours")


def remember(service: Service, path: Path, params: Params) -> None:
    """Add to this machine's history how right the predicted speed was, for `inspect` to say.

    Where others had the processors for much of the time that says nothing about the prediction.
    """
    rates = service.engine.forecast.lone_rates
    if rates is not None and late_share(thread_times(getattr(service.engine, "pid", None))) <= DISTURBED:
        model = f"{path.name}:{path.stat().st_size}"
        history.add([("served decode", *rates)], model=model, build=params.llama_build)
