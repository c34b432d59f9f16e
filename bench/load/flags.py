"""`ggufphys bench load URL`: its flags. Whoever asks for help alone needs no other package."""

import argparse
import os
from pathlib import Path
from typing import Any, Final, get_args

from bench.load.address import Endpoint
from bench.load.goal import Goal
from ggufphys.flags.numbers import at_least, count, integer, seconds
from ggufphys.flags.parser import exclude
from ggufphys.units import parse_json

LEVELS: Final = "1,2,10,50,100"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """URL, how hard, what requests, what to print."""
    add = parser.add_argument
    add("url", metavar="URL", help="where the server is: http://127.0.0.1:8080, with or without /v1")
    add("--json", action="store_true", help="one JSON document on stdout")
    add(
        "-c",
        "--concurrency",
        default=LEVELS,
        metavar="N,N",
        help=f"clients at once, each sending its next request when it has its answer (default {LEVELS})",
    )
    add("--rate", metavar="R,R", help="requests a second at random times (Poisson) instead, whatever comes back")
    add(
        "--until-saturation",
        action="store_true",
        help="double the clients from the first level on until tokens a second rise by less than 5 %%",
    )
    add(
        "-n",
        "--requests",
        type=count,
        default=0,
        metavar="N",
        help="requests a level (default: 4 for each client, 20 at least)",
    )
    add("--duration", type=float, default=0.0, metavar="S", help="send no more after so many seconds a level")
    add("--repeat", type=at_least(1), default=1, metavar="N", help="do each level so many times, in turn (default 1)")
    add("--warm-up", type=count, default=2, metavar="N", help="requests before the first level (default 2)")
    add(
        "-p",
        "--prompt",
        default="128",
        metavar="N",
        help="tokens: 128, 64..512, lognormal:MEDIAN:SIGMA (default 128)",
    )
    add("-g", "--answer", default="64", metavar="N", help="the same of answers (default 64)")
    add(
        "--shared",
        type=count,
        default=0,
        metavar="N",
        help="tokens that all prompts begin with (default 0)",
    )
    add("--endpoint", choices=get_args(Endpoint), default=get_args(Endpoint)[0])
    add("--model", default="", help="its name for the server (default: the first that it lists)")
    add(
        "--extra",
        type=_object,
        default={},
        metavar="JSON",
        help='more fields of the body, and with null fewer: \'{"ignore_eos": true, "stream_options": null}\'',
    )
    add("--api-key", default=os.environ.get("OPENAI_API_KEY", ""), help="(default: $OPENAI_API_KEY)")
    add("--timeout", type=seconds, default=600.0, metavar="S", help="seconds for a whole answer (default 600)")
    add("--goal", type=_goal, metavar="ttft=S,tpot=S,e2e=S", help="what an answer must keep to count as good")
    add("--pid", type=at_least(1), metavar="N", help="the server's process, whose resident memory is watched")
    add("--label", default="", metavar="TEXT", help="what the server is called in reports")
    add("--seed", type=integer, default=0, metavar="N")
    add("--jsonl", type=Path, metavar="FILE", help="write each request there")
    add("--csv", type=Path, metavar="FILE", help="write a row a level there")
    exclude(parser, "--rate", "--concurrency", "--until-saturation")


def run(args: argparse.Namespace) -> int:
    """Drive the server and print; see `bench.load.command`."""
    from bench.load.command import run as drive

    return drive(args)


def _object(text: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text[:60]!r}: expected a JSON object")
    return value


def _goal(text: str) -> Goal:
    limits: dict[str, float] = {}
    try:
        for part in text.split(","):
            name, _, seconds = part.partition("=")
            limits[f"{name.strip()}_s"] = float(seconds)
        if not all(limit > 0 for limit in limits.values()):
            raise ValueError
        return Goal(**limits)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected ttft=S,tpot=S,e2e=S, or some of them, in seconds"
        ) from error
