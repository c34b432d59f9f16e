"""`ggufphys serve -m a=a.gguf -m b=b.gguf`: what `serve` does for several models."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ggufphys import GGUFPhysError
from ggufphys.gguf.locate import local_path
from ggufphys.machine.host import main_memory
from ggufphys.memory.context import beyond_training
from ggufphys.params import Params
from ggufphys.units import format_bytes
from server.app import create_app, service_of
from server.beforehand import prediction, resident_bytes
from server.config import ServerConfig
from server.ending import WAKE_S, Watch, drain
from server.engine.checks import check_context, check_model_file
from server.engine.crash import FileStamp
from server.engine.guessing import Guessing
from server.engine.supervised import SupervisedEngine
from server.flags import say
from server.fleet import Fleet, LazyEngine, describe
from server.growth import growth_of
from server.guess_flags import lookups_of
from server.http import listening
from server.journal import warn
from server.keys import reload_keys
from server.ledger import Ledger, Pids
from server.room import Room
from server.service import Service
from server.signals import Signals


def named_models(named: Sequence[str]) -> dict[str, Path]:
    """Names and files of `name=path`.

    Raises:
        ValueError: one has no name, or the name of another.
    """
    found: dict[str, Path] = {}
    for each in named:
        name, equals, path = each.partition("=")
        if not equals or not name or name in found:
            raise ValueError(f"several models are named, {each!r} among them: expected -m NAME=FILE, each name once")
        found[name] = local_path(path)
    return found


def in_flight(service: Service) -> Callable[[], int]:
    """How many requests a model has under way."""
    return lambda: service.in_flight.count


def are_several(named: Sequence[str]) -> bool:
    """Whether -m names models instead of a file."""
    return len(named) > 1 or any("=" in each and not Path(each).exists() for each in named)


def serve_several(args: argparse.Namespace, params: Params, config: ServerConfig) -> int:
    """Serve until a signal; the exit code, 0.

    Raises:
        GGUFPhysError, ValueError, OSError: one of the models cannot be served.
    """
    budget_bytes = args.models_memory or main_memory().total_bytes
    room = Room(budget_bytes or 1 << 62, args.models_max, n_waiting_max=args.max_queue)
    apps, engines, stamps = {}, [], dict[str, FileStamp]()
    for name, path in named_models(args.models).items():
        _, hparams = check_model_file(path, params)
        made = check_context(params, hparams)
        if beyond := beyond_training(params, made.n_ctx_seq, hparams.n_ctx_train):
            warn(f"warning: {name}: {beyond}")
        predicted = prediction(path, params)
        growth = growth_of(path, params)
        if isinstance(predicted, str):
            nbytes = path.stat().st_size
        else:
            nbytes = predicted.process_bytes + growth(made.n_ctx, made.n_ctx)  # once its cache is full
        if budget_bytes and nbytes > budget_bytes:
            raise GGUFPhysError(f"{name} alone needs about {format_bytes(nbytes)}, of {format_bytes(budget_bytes)}")

        def start(path: Path = path, name: str = name) -> SupervisedEngine:
            stamps[name] = FileStamp.of(str(path))
            return SupervisedEngine(
                path, params, name=name, max_waiting=args.max_queue, warn=warn, target_s=args.target_itl / 1000,
                verbose=args.verbose, guessing=Guessing(lookups=lookups_of(args), always=args.spec_always),
            )  # fmt: skip

        engine = LazyEngine(name, nbytes, start, room)
        ledger = Ledger(predicted=predicted, base_bytes=resident_bytes(), pids=Pids(engine), growth=growth)
        apps[name] = create_app(config, engine, ledger)
        engine.in_use = in_flight(service_of(apps[name]))
        engines.append(engine)
    services = [service_of(app) for app in apps.values()]
    for service in services:
        service.siblings = tuple(engines)
        service.in_flight.ended = room.look_again
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        for engine in engines:
            stack.callback(engine.close)
        fleet = Fleet(apps, config.max_body_bytes)
        n_streams = len(apps) * (2 * args.max_queue + params.n_seq_max)  # as many may wait for room, too
        http = stack.enter_context(
            listening(
                fleet, host=args.host, port=args.port, max_streams=n_streams, max_body_bytes=config.max_body_bytes
            )
        )
        say(describe(engines, budget_bytes))
        say(f"{http.url} serves {', '.join(apps)}, each loaded when it is asked for; Ctrl-C ends it")
        watch = Watch()
        while not signals.received.wait(WAKE_S):
            watch.look(stamps[each.name] for each in engines if each.is_loaded)
            if signals.hung_up.is_set():
                signals.hung_up.clear()
                if args.api_key_file is not None:
                    reload_keys([service.keys for service in services], args.api_key, args.api_key_file)
        drain(services, http, args.drain_timeout)
    return 0
