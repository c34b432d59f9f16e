"""`ggufphys serve`: flags to a running server, and signals to its orderly end."""

import argparse
import importlib
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, get_args

from ggufphys import GGUFPhysError, MemoryPrediction
from ggufphys.builds.asked import installed_build
from ggufphys.flags.run import add_run_arguments, params_from
from ggufphys.gguf.locate import local_path
from ggufphys.machine.children import environment, module_command
from ggufphys.memory.context import beyond_training
from ggufphys.params import Device, Params
from server.app import create_app, service_of
from server.beforehand import fits, host_memory, listening_json, prediction, prediction_line, resident_bytes, unwise
from server.config import ServerConfig
from server.engine.checks import check_context, check_model_file, one_output_per_sequence
from server.engine.devices import available_devices
from server.engine.errors import EngineError
from server.engine.library import load_library
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
from server.engine.protocol import EngineStatus
from server.engine.supervised import SupervisedEngine
from server.engine.threaded import TARGET_S, BaseEngine
from server.http import HttpServer
from server.service import Service
from server.signals import Signals
from server.slots import default_slots, describe_slots

WAKE_S: Final = 0.25  # how often the main thread looks up: on Windows a wait without end would not see Ctrl-C
ENGINES: Final = ("llama.cpp", "numpy")
HOLD: Final[Hold] = "f32"  # as fast as numpy gets
SWITCH_INTERVAL_S: Final = 0.0005  # so that an HTTP thread at work costs the engine's next step 0.5 ms and not 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ggufphys serve`; llama-server's names, so that its command line can be pasted."""
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "model", nargs="?", default=argparse.SUPPRESS, metavar="MODEL", help="a GGUF file (default: the embedded model)"
    )
    model.add_argument("-m", "--model", metavar="MODEL", help="the same, as llama-server has it")
    group = parser.add_argument_group("how it is served")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    group.add_argument("--port", type=port, default=8080, help="port to listen on; 0: any free one (default 8080)")
    group.add_argument(
        "--api-key", action="append", default=[], metavar="KEY",
        help="ask for this key; several by commas or by repeating the flag (default: none)",
    )  # fmt: skip
    group.add_argument("--api-key-file", type=Path, metavar="FILE", help="keys, one on each line")
    group.add_argument("-a", "--alias", default="", metavar="NAME", help="the model's name to clients")
    group.add_argument(
        "--max-queue", type=positive, default=64, metavar="N",
        help="requests that may wait; more are answered 429 (default 64)",
    )  # fmt: skip
    group.add_argument(
        "--control-tokens-in-chat", action="store_true",
        help="read control tokens that messages spell, such as <|im_end|>, as llama-server does; "
        "whoever may write then may also speak as the system (default: they are text)",
    )  # fmt: skip
    group.add_argument(
        "--drain-timeout", type=positive, default=30, metavar="S",
        help="seconds that running requests have to finish after SIGTERM or Ctrl-C (default 30)",
    )  # fmt: skip
    group.add_argument(
        "--engine", choices=ENGINES, default=ENGINES[0],
        help="what computes: llama.cpp, or this project's model in numpy, slower by far (default llama.cpp)",
    )  # fmt: skip
    group.add_argument(
        "--target-itl", type=positive, default=round(TARGET_S * 1000), metavar="MS",
        help="prompts are evaluated in pieces, so that those who read wait about so long for the next token "
        "(default %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--in-process",
        action="store_true",
        help="run llama.cpp in this process: less memory, but what ends it ends the server",
    )
    group.add_argument(
        "--hold", choices=get_args(Hold),
        help="numpy: keep weights dequantised in memory, or dequantise them piece by piece (default f32)",
    )  # fmt: skip
    group.add_argument("--json", action="store_true", help="say where it listens as one JSON document on stdout")
    group.add_argument("-v", "--verbose", action="store_true", help="llama.cpp's log, on stderr")
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; the exit code, 0.

    Raises:
        GGUFPhysError, ValueError, OSError: it cannot be served; ggufphys/errors.py says which means what.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    LOG.verbose = args.verbose
    path = local_path(args.model) if args.model else embedded_model()
    _, hparams = check_model_file(path)
    in_numpy = args.engine == "numpy"
    params = params_from(args, Params(llama_build=installed_build()), found=None if in_numpy else llama_devices)
    if not in_numpy:
        params = default_slots(params, vars(args))
    params = one_output_per_sequence(params)
    made = check_context(params, hparams)
    if in_numpy:
        check_params(params)
    elif args.hold:
        raise ValueError("--hold: llama.cpp holds weights in its own way; it is for --engine numpy")
    config = ServerConfig(
        api_keys=read_keys(args.api_key, args.api_key_file), control_tokens_in_chat=args.control_tokens_in_chat
    )
    beyond = beyond_training(params, made.n_ctx_seq, hparams.n_ctx_train)
    for warning in (
        *unwise(args.host, config.api_keys),
        *([beyond] if beyond else []),
        *(without_effect(params) if in_numpy else ()),
    ):
        warn(f"warning: {warning}")
    predicted: MemoryPrediction | str
    if in_numpy:
        model, predicted = open_numpy(args, path, params)
    else:
        model, predicted = None, prediction(path, params)
    tell = warn if args.json else say
    tell(prediction_line(predicted))
    if not isinstance(predicted, str):
        refusal, tight = fits(predicted, host_memory())
        if refusal:
            raise GGUFPhysError(refusal)
        if tight:
            warn(f"warning: {tight}")
    with ExitStack() as stack:
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        signals = stack.enter_context(Signals())
        options = {"name": args.alias, "max_waiting": args.max_queue, "warn": warn}
        engine: BaseEngine
        if model is not None:
            engine = NumpyEngine(model, **options)
        elif args.in_process:
            engine = LlamaEngine(path, params, target_s=args.target_itl / 1000, **options)
        else:
            engine = SupervisedEngine(path, params, target_s=args.target_itl / 1000, verbose=args.verbose, **options)
        stack.callback(engine.close)
        app = create_app(config, engine)
        try:
            http = HttpServer(
                app,
                host=args.host,
                port=args.port,
                max_streams=args.max_queue + params.n_seq_max,
                max_body_bytes=config.max_body_bytes,
            )
        except OSError as error:
            raise ValueError(
                f"cannot listen on {args.host}:{args.port}: {error.strerror or error}; "
                "choose another with --host and --port (0: any free port)"
            ) from error
        stack.enter_context(http)
        tell(f"{http.url} serves {path}; {describe_slots(made, vars(args))}; Ctrl-C ends it")
        if args.json:
            say(listening_json(http.url, path, predicted))
        return serve(engine, service_of(app), http, signals, drain_timeout_s=args.drain_timeout)


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


def llama_devices() -> tuple[Device, ...]:
    """The GPUs that this build of llama.cpp finds: used unless flags name others, as llama-server does.

    A child looks, so that llama.cpp stays out of this process.
    """
    try:
        done = subprocess.run(
            module_command("server.engine.list_devices"), env=environment(), capture_output=True, timeout=60, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return available_devices(load_library())  # says what is wrong
    return tuple(Device(**fields) for fields in json.loads(done.stdout))


def serve(engine: BaseEngine, service: Service, http: HttpServer, signals: Signals, *, drain_timeout_s: float) -> int:
    """Wait for the end: a load that failed, or a signal and what was in flight behind it."""
    while not signals.received.wait(WAKE_S):
        if engine.status is EngineStatus.FAILED:
            error = engine.error
            assert error is not None
            raise error
        if engine.status is EngineStatus.CLOSED:
            raise EngineError("the engine's thread has ended without a reason: a bug of ours")
    service.draining.set()
    if service.in_flight.count:
        warn(f"finishing {service.in_flight.count} request(s), at most {drain_timeout_s} s; again to quit at once")
    if service.in_flight.wait_for_none(drain_timeout_s):
        http.flush()
    else:
        warn(f"{service.in_flight.count} request(s) did not finish in {drain_timeout_s} s and are cut off")
    return 0


def embedded_model() -> Path:
    """The model that ships with ggufphys."""
    from ggufphys.embedded import MODEL

    return MODEL


def read_keys(given: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """The API keys of --api-key, which may hold several by commas, and --api-key-file.

    Raises:
        ValueError: a key file without a key, which would leave the server open.
        OSError: the file cannot be read.
    """
    keys = [key.strip() for each in given for key in each.split(",")]
    if file is not None:
        in_file = [line.strip() for line in file.read_text().splitlines()]
        if not any(in_file):
            raise ValueError(f"{file} has no API key in it, expected one on each line")
        keys += in_file
    return tuple(filter(None, keys))


def port(text: str) -> int:
    """A TCP port."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (expected 0 to 65535)")
    return int(text)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def say(message: str) -> None:
    """A line for the user, at once: it may be a program that waits for the address."""
    sys.stdout.write(message + "\n")
    sys.stdout.flush()


def warn(message: str) -> None:
    """A line that is not part of the output."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
