"""The flags of `ggufphys serve`: ours, and llama-server's, of which every one is taken, refused or named."""

import argparse
import os
from pathlib import Path
from typing import Final, get_args

from ggufphys.flags.environment import unknown
from ggufphys.flags.others import add_other_flags, other_flags_notes
from ggufphys.flags.run import add_run_arguments
from server.access.cors import DEFAULT, CorsPolicy
from server.access.keys import read_keys
from server.config import ServerConfig
from server.engine.in_numpy.engine import Hold
from server.engine.loop.threaded import TARGET_S
from server.engine.loop.vitality import STUCK_S, Bounds
from server.flags.adapters import add_adapter_arguments
from server.flags.guessing import add_guess_arguments
from server.flags.hub import add_hub_arguments
from server.flags.media import add_media_arguments
from server.flags.pasted import WITHOUT_EFFECT, add_field_arguments, add_vector_arguments, field_defaults
from server.flags.values import hosts, interval, names, port, positive, prefix, size, template, template_file

ENGINES: Final = ("llama.cpp", "numpy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ggufphys serve`; llama-server's names, so that its command line can be pasted."""
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a GGUF file, ollama:name[:tag], or hf:owner/repo[@revision][:file], downloaded before (default: the "
        "embedded model)",
    )
    parser.add_argument(
        "-m", "--model", dest="models", action="append", default=[], metavar="MODEL",
        help="the same, as llama-server has it",
    )  # fmt: skip
    add_hub_arguments(parser)
    _add_served(parser.add_argument_group("how it is served"))
    add_vector_arguments(parser.add_argument_group("embeddings and ranks"))
    add_media_arguments(parser.add_argument_group("images and sounds"))
    add_adapter_arguments(parser.add_argument_group("adapters"))
    add_guess_arguments(parser.add_argument_group("speculative decoding"))
    _add_models(
        parser.add_argument_group(
            "several models (-m NAME=FILE, each loaded when asked for; -md, -mm and --lora NAME=FILE are that one's)"
        )
    )
    _add_clients(parser.add_argument_group("who may use it, and how much"))
    _add_engine(parser.add_argument_group("what computes"))
    add_field_arguments(parser)
    add_run_arguments(parser)
    add_other_flags(parser, but=tuple(parser._option_string_actions), more=WITHOUT_EFFECT)


def config_of(args: argparse.Namespace) -> ServerConfig:
    """What flags say of the HTTP side."""
    return ServerConfig(
        api_keys=read_keys(args.api_key, args.api_key_file),
        requests_per_minute=args.client_rate,
        requests_at_once=args.client_concurrency,
        field_defaults=field_defaults(args),
        chat_template=args.chat_template_file or args.chat_template or "",
        aliases=args.alias,
        api_prefix=args.api_prefix,
        ping_s=args.sse_ping_interval,
        cors=CorsPolicy(
            origins=args.cors_origins,
            methods=args.cors_methods,
            headers=args.cors_headers,
            credentials=args.cors_credentials,
        ),
        control_tokens_in_chat=args.control_tokens_in_chat,
        prefill_assistant=args.prefill_assistant,
        skip_chat_parsing=args.skip_chat_parsing,
        shows_slots=args.slots,
        shows_page=args.ui,
    )


def stall_bounds(args: argparse.Namespace) -> Bounds:
    """What flags say of workers that hang."""
    return Bounds(stuck_s=args.stall_timeout) if args.stall_timeout > 0 else Bounds(0, 0)


def overlooked(args: argparse.Namespace) -> tuple[str, ...]:
    """What of the command line and the environment changes nothing here."""
    strange = (f"{name} in the environment is no variable of llama-server's" for name in unknown(os.environ))
    return *other_flags_notes(args), *strange


def _add_served(group: "argparse._ArgumentGroup") -> None:
    _add_http(group)
    _add_cors(group)
    _add_chat(group)
    _add_shown(group)


def _add_http(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--host", type=hosts, default="127.0.0.1", metavar="ADDRESS,...",
        help="addresses to listen on, or paths of Unix sockets, which end in .sock (default 127.0.0.1)",
    )  # fmt: skip
    group.add_argument("--port", type=port, default=8080, help="port to listen on; 0: any free one (default 8080)")
    group.add_argument(
        "-a", "--alias", type=names, default=(), metavar="NAME,...",
        help="the model's name to clients, and others for it",
    )  # fmt: skip
    group.add_argument("--api-prefix", type=prefix, default="", metavar="/PATH", help="what every path begins with")
    group.add_argument(
        "--max-queue", type=positive, default=64, metavar="N",
        help="requests that may wait; more are answered 429 (default 64)",
    )  # fmt: skip
    group.add_argument(
        "--drain-timeout", type=positive, default=30, metavar="S",
        help="seconds that running requests have to finish after SIGTERM or Ctrl-C (default 30)",
    )  # fmt: skip
    group.add_argument(
        "--sse-ping-interval", type=interval, default=15, metavar="S",
        help="seconds of silence in a stream before a comment is sent; -1: none is (default 15)",
    )  # fmt: skip


def _add_cors(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--cors-origins", default=DEFAULT.origins, metavar="ORIGINS",
        help="pages of which origins may use it: *, localhost, or origins by commas (default *, as llama-server)",
    )  # fmt: skip
    group.add_argument(
        "--cors-methods", default=DEFAULT.methods, metavar="METHODS",
        help=f"by which methods (default {DEFAULT.methods})",
    )  # fmt: skip
    group.add_argument(
        "--cors-headers", default=DEFAULT.headers, metavar="HEADERS",
        help="with which headers (default *: those that they ask for)",
    )  # fmt: skip
    group.add_argument(
        "--cors-credentials", action=argparse.BooleanOptionalAction, default=False,
        help="they may send cookies and passwords that the browser has for this server (default: not)",
    )  # fmt: skip


def _add_chat(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--chat-template", type=template, metavar="JINJA", help="in place of the file's (or: chatml)")
    group.add_argument("--chat-template-file", type=template_file, metavar="FILE", help="the same, from a file")
    group.add_argument(
        "--control-tokens-in-chat", action="store_true",
        help="read control tokens that messages spell, such as <|im_end|>, as llama-server does; "
        "whoever may write then may also speak as the system (default: they are text)",
    )  # fmt: skip
    group.add_argument(
        "--prefill-assistant", action=argparse.BooleanOptionalAction, default=True,
        help="a last message of the assistant's is the beginning of the answer (default: it is)",
    )  # fmt: skip
    group.add_argument(
        "--skip-chat-parsing", action=argparse.BooleanOptionalAction, default=False,
        help="the answer's text as the model writes it, thoughts and calls of tools too (default: they are told apart)",
    )  # fmt: skip


def _add_shown(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--slots", action=argparse.BooleanOptionalAction, default=True, help="GET /slots (default: yes)")
    group.add_argument(
        "--ui", "--webui", action=argparse.BooleanOptionalAction, default=True, help="the page at / (default: yes)"
    )
    group.add_argument("--log-file", type=Path, metavar="FILE", help="notes and a line for each request, also here")
    group.add_argument("--log-jsonl", action="store_true", help="notes and requests as lines of JSON")
    group.add_argument("--access-log", action="store_true", help="a line for each request on stderr")
    group.add_argument("--json", action="store_true", help="say where it listens as one JSON document on stdout")
    group.add_argument("-v", "--verbose", action="store_true", help="llama.cpp's log, on stderr")


def _add_models(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--models-memory", type=size, default=0, metavar="SIZE",
        help="what models may hold together, by prediction; the longest unused make room (default: the machine's)",
    )  # fmt: skip
    group.add_argument(
        "--models-max", type=positive, default=4, metavar="N", help="models that may be loaded together (default 4)"
    )


def _add_clients(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--api-key", action="append", default=[], metavar="KEY",
        help="ask for this key; several by commas or by repeating the flag (default: none)",
    )  # fmt: skip
    group.add_argument("--api-key-file", type=Path, metavar="FILE", help="keys, one on each line; read again at SIGHUP")
    group.add_argument(
        "--client-rate", type=positive, default=0, metavar="N",
        help="requests a minute of one key (or address, without keys); more are answered 429 (default: any number)",
    )  # fmt: skip
    group.add_argument(
        "--client-concurrency", type=positive, default=0, metavar="N",
        help="requests under way of one key (or address); more are answered 429 (default: any number)",
    )  # fmt: skip


def _add_engine(group: "argparse._ArgumentGroup") -> None:
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
        "--batch-invariant", action="store_true",
        help="what runs beside a request changes no bit of its answer; a lone one is slower by it (default: it may)",
    )  # fmt: skip
    group.add_argument(
        "--stall-timeout", type=interval, default=STUCK_S, metavar="S",
        help="seconds after which an engine's process that does not get on is replaced, a silent one after 60 "
        "(default %(default)s; 0: never)",
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
    group.add_argument(
        "--oversized", action="store_true", help="serve a model that is predicted to need more memory than there is"
    )
