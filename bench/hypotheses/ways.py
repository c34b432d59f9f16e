"""In which way is a model run, so that its tokens a second can be told? A table of a claim, as parameters and in words.

A way says which model (`file`, `type`; where it is predicted `shape` and `type`, and `on` which machine), how (`flags`,
llama.cpp's), and what is timed: `phase` decode or prefill, behind or of `n_prompt` tokens, of `n_seq` sequences at
once; with `users` it is our server under `bench load`, prompts of `n_prompt` and answers of `n_predict` included.
"""

import argparse
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from bench.hypotheses.files import Setup
from bench.speed.child import MAX_STEPS
from ggufphys.builds.asked import installed_build
from ggufphys.context import pad_ctx
from ggufphys.flags.parser import Parser
from ggufphys.flags.run import add_run_arguments, given, params_from
from ggufphys.params import Device, Params
from ggufphys.speed.published import published_machine

PHASES: Final = ("decode", "prefill")
N_PROMPT: Final = {"decode": 32, "prefill": 512}
N_ASKED, N_ANSWERED = 128, 64  # tokens of a user's prompt and of its answer


class _Flags(Parser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"flags: {message}")


def check(way: Setup) -> None:
    """Refuse what cannot be, before anything runs.

    Raises:
        ValueError: what does not go together, a flag or a machine that is not known, a context too short.
    """
    if phase_of(way) not in PHASES:
        raise ValueError(f"phase is {way['phase']!r}, expected {' or '.join(PHASES)}")
    if "on" in way:
        published_machine(way["on"])
    for one, other, why in (
        ("users", "phase", "a server is asked for both, prompts and answers"),
        ("users", "n_seq", "so many users at once are so many sequences"),
    ):
        if one in way and other in way:
            raise ValueError(f"{other} beside {one}: {why}")
    if "n_predict" in way and "users" not in way:
        raise ValueError("n_predict without users: as many steps are timed as are needed")
    if phase_of(way) == "prefill" and "n_seq" in way:
        raise ValueError("n_seq with prefill: prompts are read one after the other")
    params = params_of(way)
    cells = pad_ctx(params.n_ctx) if params.kv_unified else pad_ctx(params.n_ctx // params.n_seq_max)
    needed = _cells(way) * (way.get("n_seq", 1) if params.kv_unified else 1)
    if "users" not in way and cells < needed:
        raise ValueError(f"flags make a context of {cells} cells a sequence, expected {needed}, as many as are timed")


def phase_of(way: Setup) -> str:
    """What is timed, decode or prefill."""
    return str(way.get("phase", "decode"))


def n_prompt_of(way: Setup) -> int:
    """Tokens of the prompt that is read, or behind which it is generated."""
    return int(way.get("n_prompt", N_PROMPT[phase_of(way)]))


def flags_of(way: Setup) -> list[str]:
    """The flags of a way, word by word."""
    return shlex.split(way.get("flags", ""))


def params_of(way: Setup, found: Callable[[], Sequence[Device]] = tuple) -> Params:
    """How it is run: by its flags, and as many sequences and as long a context as are timed where they leave it open.

    Raises:
        ValueError: a flag that is not known, or a value that llama.cpp would refuse.
    """
    params = params_from(_args(way), Params(llama_build=installed_build()), found=found)
    n_seq = max(params.n_seq_max, way.get("n_seq", 1))
    n_ctx = params.n_ctx or n_seq * pad_ctx(_cells(way))
    return replace(params, n_ctx=n_ctx, n_seq_max=n_seq, n_outputs_max=params.n_outputs_max or n_seq)


def wants_gpu(way: Setup) -> bool:
    """Do its flags put layers onto devices that they do not name?"""
    asked = given(_args(way))
    return bool(asked.get("n_gpu_layers")) and not asked.get("devices")


def name_of(way: Setup, model: str = "") -> str:
    """A way in a few words, of the model that it does not name itself."""
    n_prompt = n_prompt_of(way)
    words = (
        " as ".join(filter(None, (way.get("shape") or Path(way.get("file", model)).name, way.get("type")))),
        way.get("flags"),
        f"on {way['on']}" if "on" in way else "",
        f"{way['users']} user{'s' * (way['users'] > 1)}" if "users" in way else "",
        f"{way['n_seq']} sequences" if way.get("n_seq", 1) > 1 else "",
        f"a prompt of {n_prompt}" if phase_of(way) == "prefill" else "",
    )
    return ", ".join(filter(None, words))


def _cells(way: Setup) -> int:
    """Tokens that each sequence comes to have."""
    return n_prompt_of(way) + (MAX_STEPS if phase_of(way) == "decode" else 1)


def _args(way: Setup) -> argparse.Namespace:
    parser = _Flags(add_help=False, allow_abbrev=False)
    add_run_arguments(parser)
    words = flags_of(way)
    known = {name for action in parser._actions for name in action.option_strings}
    for word in words:  # others change no memory and are taken elsewhere, but may change the speed
        if re.match("-+[a-z]", word) and word.partition("=")[0] not in known:
            raise ValueError(f"flags: {word} has no rule here: expected flags that `ggufphys measure --help` lists")
    args: argparse.Namespace = parser.parse_args(words)
    return args
