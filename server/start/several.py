"""`ggufphys serve -m a=a.gguf -m b=b.gguf`: what `serve` does for several models."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from ggufphys import GGUFPhysError
from ggufphys.gguf.locate import local_path
from ggufphys.machine.host import main_memory
from ggufphys.params import Params
from ggufphys.units import format_bytes
from server.engine.errors import EngineError
from server.engine.protocol import EngineStatus
from server.engine.worker.crash import FileStamp
from server.flags.hub import hub_reference
from server.fleet.belongings import by_model
from server.fleet.fleet import Fleet, describe
from server.fleet.room import Room
from server.journal import say
from server.net.http import listening
from server.start.asked import asked_params, warn_of_flags
from server.start.beforehand import models_json
from server.start.defaults import checked_config
from server.start.ending import serve_until_signal
from server.start.member import Member, Run
from server.start.planned import tell
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


def are_several(named: Sequence[str]) -> bool:
    """Whether -m names models instead of a file."""
    return len(named) > 1 or any("=" in each and not Path(each).exists() for each in named)


def serve_several(args: argparse.Namespace) -> int:
    """Serve until a signal; the exit code, 0.

    Raises:
        GGUFPhysError, ValueError, OSError: one of the models cannot be served.
    """
    if args.engine == "numpy" or args.in_process:
        raise ValueError("several models are each a process of llama.cpp's: without --engine numpy and --in-process")
    if args.alias:
        raise ValueError("--alias: several models have the names of -m NAME=FILE")
    if hub_reference(args) is not None:
        raise ValueError("--hf-repo names one model; beside others it is -m NAME=hf:OWNER/REPO")
    config, params = checked_config(args), asked_params(args)
    warn_of_flags(args, config)
    budget_bytes = args.models_memory or main_memory().total_bytes
    room = Room(budget_bytes or 1 << 62, args.models_max, n_waiting_max=args.max_queue)
    runs = runs_of(args, params, budget_bytes)
    members = [Member(run, config, room) for run in runs]
    engines, services = [each.engine for each in members], [each.service for each in members]
    variants = {variant: member.app for member in members for variant in member.variants}
    for service in services:
        service.siblings = (*engines, *variants)
    apps = {each.name: each.app for each in members}
    fleet = Fleet(apps | {variant.name: app for variant, app in variants.items()}, config.max_body_bytes)
    n_streams = sum(2 * args.max_queue + run.asked.params.n_seq_max for run in runs)  # as many may wait for room, too
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        for engine in engines:
            stack.callback(engine.close)
        http = stack.enter_context(
            listening(
                fleet, host=args.host, port=args.port, max_streams=n_streams, max_body_bytes=config.max_body_bytes
            )
        )
        tell(args, describe(engines, budget_bytes))
        tell(args, f"{', '.join(http.urls)} serves {', '.join(apps)}, each loaded when it is asked for; Ctrl-C ends it")
        if args.json:
            say(models_json(http.url, {each.name: (each.path, each.engine.process_bytes) for each in members}))

        def in_use() -> Iterator[FileStamp]:
            for member in members:
                if member.engine.is_loaded:
                    yield from member.stamps

        def check() -> None:
            for engine in engines:
                if engine.status is EngineStatus.FAILED and engine.error is not None:
                    raise EngineError(f"{engine.name}: {engine.error}") from engine.error

        serve_until_signal(args, signals, http, services, engines, stamps=in_use, check=check)
    return 0


def runs_of(args: argparse.Namespace, params: Params, budget_bytes: int | None) -> list[Run]:
    """How each of the models that flags name is run; raises as `serve_several`."""
    named = named_models(args.models)
    found = []
    for name, own in by_model(args, named).items():
        run = Run.of(name, named[name], own, params)
        if budget_bytes and run.nbytes > budget_bytes:
            raise GGUFPhysError(f"{name} alone needs about {format_bytes(run.nbytes)}, of {format_bytes(budget_bytes)}")
        found.append(run)
    return found
