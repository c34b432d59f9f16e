"""The console script: which subcommand was asked for, and what becomes of its errors?

Each subcommand is a module with `add_arguments(parser)` and `run(args) -> exit code`, imported only when it is called:
`inspect` must start in milliseconds, and the other rooms' packages may not be installed.

Exit codes: 0 ok · 1 it does not fit, or a check failed · 2 usage · 3 not a readable GGUF · 4 unsupported.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol, cast

from ggufphys.errors import GGUFError, GGUFPhysError, MissingExtraError, UnsupportedError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREADABLE: Final = 3
UNSUPPORTED: Final = 4
INTERRUPTED: Final = 130
OUR_PACKAGES: Final = ("ggufphys", "refengine", "server", "bench")


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table of subcommands."""

    module: str
    help: str
    plotter: str = ""  # the module of another room that draws its --plot, found by the subcommand as args.plotter
    numpy: str = ""  # the room of the model in numpy, for --engine numpy, found as args.numpy_room


# fmt: off
COMMANDS: Final[Mapping[str, Command]] = {
    "inspect":       Command("ggufphys.commands.inspect", "what is in the file, and what it will cost in memory",
                             plotter="bench.sweep_plot"),
    "fit":           Command("ggufphys.commands.fit",     "the best settings that fit, as llama-server flags"),
    "tensors":       Command("ggufphys.commands.tensors", "the tensor table"),
    "verify":        Command("refengine.checks.verify",   "numerics: dequantised blocks, numpy against ggml"),
    "measure":       Command("bench.measure.command",     "run it in a child process: predicted against measured"),
    "serve":         Command("server.main",               "the HTTP server", numpy="refengine"),
    "bench quality": Command("bench.quality",             "perplexity of a model on text files"),
    "synth":         Command("bench.synth.command",       "a GGUF of a known model's shape with random weights"),
    "demo":          Command("bench.demo",                "all of the above on the embedded model, in a minute"),
}
# fmt: on


class _Parser(argparse.ArgumentParser):
    """Errors in one line: a usage of forty lines above would hide it."""

    def error(self, message: str) -> NoReturn:
        """Exit code 2, with the message."""
        self.exit(USAGE, f"ggufphys: error: {message}\n`{self.prog} --help` lists the flags\n")


class CommandModule(Protocol):
    """What a subcommand's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work; returns the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand named by `argv` (default: the process's arguments); returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = _command_name(arguments)
    if name is None:
        return _without_command(arguments)
    rest = arguments[len(name.split()) :]
    try:
        module = cast("CommandModule", importlib.import_module(COMMANDS[name].module))
        parser = _Parser(prog=f"ggufphys {name}", description=COMMANDS[name].help, allow_abbrev=False)
        module.add_arguments(parser)
        parser.set_defaults(plotter=COMMANDS[name].plotter, numpy_room=COMMANDS[name].numpy)
        code = module.run(parser.parse_args(rest))
        sys.stdout.flush()  # so that a closed pipe shows here, not in the interpreter's last breath
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        print("ggufphys: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (GGUFPhysError, OSError, ValueError, ImportError) as error:
        if isinstance(error, ImportError) and (error.name or "").split(".")[0] in OUR_PACKAGES:
            raise  # not a missing package but a fault of ours
        print(f"ggufphys: error: {_message(error)}", file=sys.stderr)
        return _exit_code(error)
    return code


def _command_name(arguments: Sequence[str]) -> str | None:
    """The subcommand that the arguments start with; `bench quality` is two words."""
    for n_words in (1, 2):
        name = " ".join(arguments[:n_words])
        if name in COMMANDS:
            return name
    return None


def _without_command(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in ("-V", "--version"):
        from ggufphys import __version__

        print(f"ggufphys {__version__}")
        return OK
    group = [name for name in COMMANDS if arguments and name.startswith(f"{arguments[0]} ")]  # `bench` is not a command
    words = arguments[1:] if group else arguments
    asked = bool(words) and words[0] in ("-h", "--help", "help")
    out = sys.stdout if asked else sys.stderr
    if words and not asked:
        print(f"ggufphys: error: no subcommand {' '.join(arguments[: 2 if group else 1])!r}", file=out)
    print("usage: ggufphys SUBCOMMAND [--json] ...\n\nsubcommands:", file=out)
    for name in group or COMMANDS:
        print(f"  {name:14}{COMMANDS[name].help}", file=out)
    print("\n`ggufphys SUBCOMMAND --help` tells the rest; `ggufphys --version` the version.", file=out)
    return OK if asked else USAGE


def _message(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"this subcommand needs a package that is not installed ({error}): pip install 'ggufphys[all]'"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _exit_code(error: Exception) -> int:
    if isinstance(error, UnsupportedError):
        return UNSUPPORTED
    if isinstance(error, GGUFError | OSError):
        return UNREADABLE
    if isinstance(error, ValueError | ImportError | MissingExtraError):
        return USAGE
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
