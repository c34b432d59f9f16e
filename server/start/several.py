"""`ggufphys serve -m a=a.gguf -m b=b.gguf`: what `serve` does for several models."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from flask import Flask

from ggufphys import GGUFPhysError, MemoryPrediction
from ggufphys.context import ContextParams
from ggufphys.gguf.locate import local_path
from ggufphys.machine.host import main_memory
from ggufphys.memory.context import beyond_training
from ggufphys.params import Params
from ggufphys.units import format_bytes
from server.access.keys import reload_keys
from server.accounts.footprint import find
from server.accounts.growth import Growth, growth_of
from server.accounts.ledger import Ledger, Pids
from server.app import create_app, service_of
from server.config import ServerConfig
from server.engine.adapters import check_adapter
from server.engine.checks import check_context, check_model_file, check_serves, one_output_per_sequence
from server.engine.counters import Counters
from server.engine.crash import FileStamp
from server.engine.guessing import Guessing
from server.engine.protocol import Adapter
from server.engine.supervised import SupervisedEngine
from server.flags.adapters import adapters_of
from server.flags.guessing import draft_opened, drafts_warnings, guessing_of, with_rows
from server.flags.serve import say, stall_bounds
from server.fleet.belongings import by_model
from server.fleet.fleet import Fleet, LazyEngine, describe
from server.fleet.room import Room
from server.journal import warn
from server.left_open.invariance import invariant
from server.left_open.vectors import gives_vectors, refuse_guesses, vector_params
from server.net.http import listening
from server.service import Service
from server.start.beforehand import models_json, prediction, resident_bytes
from server.start.ending import WAKE_S, Watch, drain
from server.start.signals import Signals


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


def filled(made: ContextParams) -> Counters:
    """What an engine has done at most, as far as memory goes."""
    return Counters(n_tokens_max=made.n_ctx, n_cells=made.n_ctx, n_batch_max=made.n_ubatch, n_chains_max=made.n_seq_max)


@dataclass(frozen=True, slots=True)
class Variant:
    """A model with one of its adapters, by its name: a `Sibling`."""

    name: str
    engine: LazyEngine

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self.engine.is_loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one of the models is run: what it needs, and what stands beside it."""

    name: str
    path: Path
    params: Params
    adapters: tuple[Adapter, ...]
    guessing: Guessing
    predicted: MemoryPrediction | str
    growth: Growth
    block: int  # slots whose answers go together so that others change no bit of them; 0: as they come
    nbytes: int  # of its process, once its cache is full

    @classmethod
    def of(cls, name: str, path: Path, args: argparse.Namespace, params: Params) -> "Run":
        """By its flags. Warns of what is unwise. Raises as `serve_several`."""
        _, hparams = check_model_file(path)
        if gives_vectors(args, hparams):
            refuse_guesses(args)
            params = vector_params(params, vars(args), path)
        params, block = invariant(args, params, path)
        if not params.embeddings:
            params = one_output_per_sequence(with_rows(params, args))
        check_model_file(path, params)
        made = check_context(params, hparams)
        beyond = "" if params.embeddings else beyond_training(params, made.n_ctx_seq, hparams.n_ctx_train)
        if beyond:
            warn(f"warning: {name}: {beyond}")
        adapters = adapters_of(args)
        for adapter in adapters:
            check_adapter(adapter.path, path)
        with draft_opened(args, lambda: find().devices) as draft:
            guessing = guessing_of(args, draft, params, made)
            for warning in drafts_warnings(guessing, draft, made):
                warn(f"warning: {name}: {warning}")
            check_serves(path)
            predicted = prediction(path, params, None, adapters, draft)
        growth = growth_of(path, params)
        most = 0 if isinstance(predicted, str) else predicted.process_bytes + growth(filled(made))
        return cls(
            name=name, path=path, params=params, adapters=adapters, guessing=guessing, predicted=predicted,
            growth=growth, block=block, nbytes=most or path.stat().st_size,
        )  # fmt: skip

    @property
    def files(self) -> tuple[str, ...]:
        """Those that are mapped while it runs."""
        return (str(self.path), *([self.guessing.draft.path] if self.guessing.draft else []))


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
    named = named_models(args.models)
    apps, engines, variants = dict[str, Flask](), list[LazyEngine](), list[Variant]()
    stamps: dict[str, tuple[FileStamp, ...]] = {}
    for name, own in by_model(args, named).items():
        run = Run.of(name, named[name], own, params)
        if budget_bytes and run.nbytes > budget_bytes:
            raise GGUFPhysError(f"{name} alone needs about {format_bytes(run.nbytes)}, of {format_bytes(budget_bytes)}")

        def start(run: Run = run) -> SupervisedEngine:
            stamps[run.name] = tuple(map(FileStamp.of, run.files))
            return SupervisedEngine(
                run.path, run.params, name=run.name, max_waiting=args.max_queue, warn=warn,
                target_s=args.target_itl / 1000, verbose=args.verbose, adapters=run.adapters, guessing=run.guessing,
                block=run.block, bounds=stall_bounds(args),
            )  # fmt: skip

        engine = LazyEngine(name, run.nbytes, start, room)
        ledger = Ledger(predicted=run.predicted, base_bytes=resident_bytes(), pids=Pids(engine), growth=run.growth)
        apps[name] = create_app(config, engine, ledger)
        engine.in_use = in_flight(service_of(apps[name]))
        engines.append(engine)
        variants += [Variant(f"{name}:{each.name}", engine) for each in run.adapters if each.name]
    services = [service_of(app) for app in apps.values()]
    for service in services:
        service.siblings = (*engines, *variants)
        service.in_flight.ended = room.look_again
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        for engine in engines:
            stack.callback(engine.close)
        fleet = Fleet(apps | {each.name: apps[each.engine.name] for each in variants}, config.max_body_bytes)
        n_streams = len(apps) * (2 * args.max_queue + params.n_seq_max)  # as many may wait for room, too
        http = stack.enter_context(
            listening(
                fleet, host=args.host, port=args.port, max_streams=n_streams, max_body_bytes=config.max_body_bytes
            )
        )
        tell = warn if args.json else say
        tell(describe(engines, budget_bytes))
        tell(f"{', '.join(http.urls)} serves {', '.join(apps)}, each loaded when it is asked for; Ctrl-C ends it")
        if args.json:
            say(models_json(http.url, {engine.name: (named[engine.name], engine.process_bytes) for engine in engines}))
        watch = Watch()
        while not signals.received.wait(WAKE_S):
            watch.look(stamp for each in engines if each.is_loaded for stamp in stamps[each.name])
            if signals.hung_up.is_set():
                signals.hung_up.clear()
                if args.api_key_file is not None:
                    reload_keys([service.keys for service in services], args.api_key, args.api_key_file)
        drain(services, http, args.drain_timeout, engines)
    return 0
