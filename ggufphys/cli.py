"""The console script: which subcommand was asked for, and what becomes of its errors?

Each subcommand is a module with `add_arguments(parser)` and `run(args) -> exit code`, imported only when it is called:
`inspect` must start in milliseconds, and the other rooms' packages may not be installed. One may also have
`environment_words()`, flags that variables of the environment stand for: the command line's come behind them.

Exit codes: 0 ok · 1 it does not fit, or a check failed · 2 usage · 3 not a readable GGUF · 4 unsupported.
"""

import atexit
import gc
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol, TextIO, cast

from ggufphys.errors import (
    USAGE,
    GGUFError,
    GGUFPhysError,
    MissingExtraError,
    OutputError,
    UnsupportedError,
    with_extra,
)
from ggufphys.frozen import dataclass
from ggufphys.units import in_a_line, in_ascii, shortened, shown

if TYPE_CHECKING:
    import argparse

OK: Final = 0
FAILED: Final = 1
UNREADABLE: Final = 3
UNSUPPORTED: Final = 4
INTERRUPTED: Final = 130
OBJECTS: Final = 1_000_000  # that a process which answers makes before it looks for garbage
OUR_PACKAGES: Final = ("ggufphys", "refengine", "server", "bench")
PROGRAMS: Final = ("llama-server", "llama-cli", "llama-bench", "llama-perplexity")  # what a pasted line may start with


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table of subcommands."""

    module: str
    help: str
    extra: str = "all"  # the extra of pyproject.toml that has the packages it needs
    for_numpy: str = ""  # a smaller one, which is enough for --engine numpy
    plotter: str = ""  # the module of another room that draws its --plot, found by the subcommand as args.plotter
    numpy: str = ""  # the room of the model in numpy, for --engine numpy and --template, found as args.numpy_room
    linter: str = ""  # the module of another room that tries chat templates, for --template, found as args.linter


# fmt: off
COMMANDS: Final[Mapping[str, Command]] = {
    "inspect":       Command("ggufphys.commands.inspect", "what is in a file, and how much memory it will take",
                             plotter="bench.sweep_plot", numpy="refengine", linter="server.lint.command"),
    "fit":           Command("ggufphys.commands.fit",     "llama-server's flags for the memory that there is"),
    "tensors":       Command("ggufphys.commands.tensors", "a file's tensors: names, shapes, types, sizes"),
    "metadata":      Command("ggufphys.commands.metadata", "a file's keys: context, licence, chat template, tokens"),
    "verify":        Command("refengine.checks.verify",   "are llama.cpp's numbers right? compared with numpy's"),
    "measure":       Command("bench.measure.command",     "run a model, and compare what it took with the prediction",
                             for_numpy="serve"),
    "doctor":        Command("ggufphys.commands.doctor",  "is this machine set up to run models well? what to change"),
    "serve":         Command("server.command",            "serve models over HTTP, with OpenAI's API",
                             for_numpy="serve", numpy="refengine"),
    "rpc-worker":    Command("server.rpc_worker",         "lend this machine's memory to llama.cpp on another one"),
    "bench calibrate": Command("bench.calibrate.command", "measure this machine's speed, for predictions (a minute)"),
    "bench speed":   Command("bench.speed.command",       "predicted and measured tokens a second, side by side"),
    "bench quality": Command("bench.quality.command",     "how much quality quantised files lose: perplexity and more"),
    "bench hypotheses": Command("bench.hypotheses.command", "what people claim about local inference: true here?"),
    "bench load":    Command("bench.load.flags",          "how a server bears load, token by token", extra="load"),
    "bench compare": Command("bench.load.compare",        "compare two results of bench load; a gate for CI"),
    "bench report":  Command("bench.report.command",      "all recorded results, as one page"),
    "synth":         Command("bench.synth.command",       "make a GGUF of a known model's shape, with random weights"),
    "demo":          Command("bench.demo",                "the commands above on the model that ships with ggufphys"),
}
# fmt: on


class Shown:
    """A stream of text on which nothing can command the terminal: names in files are strangers' words.

    Raises:
        OutputError: it cannot be written to.
        ReaderGoneError: nobody reads it any more.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """As the stream has it; what its encoding lacks becomes escapes, too."""
        text = shown(text)
        with _written():
            try:
                return self.stream.write(text)
            except UnicodeEncodeError:
                return self.stream.write(in_ascii(text))

    def flush(self) -> None:
        """Write what was held back."""
        with _written():
            self.stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


class ReaderGoneError(BrokenPipeError):
    """Whoever reads standard output (head, less) has seen enough."""


class Heard:
    """A stream of what is said beside the answer: where it cannot be written to, the answer and its exit code count."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """As the stream has it."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what was held back."""
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGoneError(*error.args) from None
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error


class CommandModule(Protocol):
    """What a subcommand's module offers."""

    def add_arguments(self, parser: "argparse.ArgumentParser") -> None:
        """Declare the arguments."""

    def run(self, args: "argparse.Namespace") -> int:
        """Do the work; returns the exit code."""


def interrupted(error: KeyboardInterrupt, program: str = "ggufphys") -> int:
    """What is said of Ctrl-C, or of another signal that ends the process, and the exit code."""
    number: int | None = getattr(error, "number", None)  # of `ggufphys.interrupts.Ended`
    if error.args and number is None:  # of `CutShort`
        said, code = f"error: {error}", UNREADABLE
    elif number is None:
        said, code = "interrupted", INTERRUPTED
    else:
        from ggufphys.machine.children import describe

        said, code = f"ended by {describe(-number)}", 128 + number  # as shells count them
    with suppress(OSError):  # the terminal may be gone
        print(f"{program}: {said}", file=sys.stderr)
    return code


def process() -> int:
    """`main` of a process, with which its answers end: what they are made of is hardly collected.

    Called by `ggufphys/__main__.py` alone.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, and a file that is opened later must not take its place
            opened = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)  # as long as the process
            setattr(sys, name, open(opened, mode, closefd=False))  # noqa: SIM115
    sys.stderr = cast("TextIO", Heard(sys.stderr))
    gc.enable()
    answers = COMMANDS.get(" ".join(sys.argv[1:2]))
    if answers is None or not answers.module.startswith("ggufphys."):
        if " ".join(sys.argv[1:2]) != "serve":  # which ends in an order of its own
            from ggufphys.interrupts import end_by_signals
            from ggufphys.machine.cut_short import end_by_a_sentence, unreadable

            end_by_signals()
            end_by_a_sentence()
            from ggufphys.gguf.lengths import kept_lengths

            with kept_lengths():
                code = main()
                if code != UNREADABLE and (said := unreadable()):  # somebody caught what was raised
                    print(f"ggufphys: error: {said}", file=sys.stderr)
                    code = UNREADABLE
            return code
        return main()
    gc.set_threshold(OBJECTS)
    code = main()
    if "threading" not in sys.modules and not atexit._ncallbacks():  # nothing else is to be done
        with suppress(OSError):  # which `main` has told
            sys.stderr.flush()
            sys.stdout.flush()
        os._exit(code)  # the system frees all at once what the interpreter would take apart
    gc.freeze()  # the end of the process frees it all, and need not look for circles in it
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand named by `argv` (default: the process's arguments); returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    stdout = sys.stdout
    if stdout is not None:
        sys.stdout = cast("TextIO", Shown(stdout))
    try:
        name = _command_name(arguments)
        code = _without_command(arguments) if name is None else _run(name, arguments)
        if stdout is not None:
            sys.stdout.flush()  # so that a closed pipe shows here, not in the interpreter's last breath
    except ReaderGoneError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return OK
    except KeyboardInterrupt as error:
        return interrupted(error)
    except (GGUFPhysError, OSError, ValueError) as error:
        print(f"ggufphys: error: {message(error)}", file=sys.stderr)
        return exit_code(error)
    finally:
        sys.stdout = stdout
    return code


def _run(name: str, arguments: Sequence[str]) -> int:
    """A subcommand's exit code; what it lacks is told."""
    from ggufphys.flags.parser import Parser  # what a question about the program itself does not need

    row, rest = COMMANDS[name], arguments[len(name.split()) :]
    try:
        module = cast("CommandModule", importlib.import_module(row.module))
        parser = Parser(prog=f"ggufphys {name}", description=row.help, allow_abbrev=False)
        module.add_arguments(parser)
        parser.set_defaults(plotter=row.plotter, numpy_room=row.numpy, linter=row.linter, words=arguments)
        words: list[str] = getattr(module, "environment_words", list)()  # flags that the environment stands for
        args = parser.parse_args([*words, *_without_program(rest)])
        from ggufphys.gguf.lengths import kept_lengths  # what --help does not need

        with kept_lengths():
            return module.run(args)
    except ImportError as error:
        room = (error.name or "").split(".")[0]
        stranger = _shadow(room) if room in OUR_PACKAGES else ""
        if room in OUR_PACKAGES and not stranger:
            raise  # not a missing package but a fault of ours
        print(f"ggufphys: error: {stranger or _missing(error, row, rest)}", file=sys.stderr)
        return USAGE


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
    if words and not asked:
        from ggufphys.flags.parser import alike

        meant = alike(" ".join(arguments[:2]), COMMANDS) or alike(arguments[0], COMMANDS)
        if arguments[0].endswith(".gguf"):
            meant = f"did you mean ggufphys inspect {arguments[0]}?\n"
        print(meant, end="", file=out)
    print("usage: ggufphys SUBCOMMAND [--json] ...", file=out)
    print("for example: ggufphys inspect model.gguf -c 8192\n\nsubcommands:", file=out)
    width = 2 + max(map(len, group or COMMANDS))
    for name in group or COMMANDS:
        print(f"  {name:{width}}{COMMANDS[name].help}", file=out)
    print("\n`ggufphys SUBCOMMAND --help` lists its flags; `ggufphys --version` prints the version.", file=out)
    return OK if asked else USAGE


def _without_program(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments without the name of the program that a pasted line starts with, behind flags of ours or none."""
    for i, argument in enumerate(arguments):
        if argument.replace("\\", "/").rpartition("/")[2].removesuffix(".exe") in PROGRAMS:
            return [*arguments[:i], *arguments[i + 1 :]]
        if not argument.startswith("--"):
            break
    return arguments


def _shadow(room: str) -> str:
    """What to say if another package of that name stands in front of ours; nothing if none does."""
    found = getattr(sys.modules.get(room), "__file__", None) or getattr(sys.modules.get(room), "__path__", [""])[0]
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH120, PTH100  # no pathlib at start-up
    if not found or os.path.abspath(found).startswith(os.path.join(ours, room)):  # noqa: PTH100, PTH118
        return ""
    return (
        f"{room!r} is something else here, {found}, and stands in front of ggufphys's own package of that name: leave "
        "the folder that it is in, or install ggufphys in an environment of its own (pipx, uv tool, a fresh venv)"
    )


def _missing(error: ImportError, row: Command, arguments: Sequence[str]) -> str:
    by_numpy = "--engine=numpy" in arguments or ("--engine", "numpy") in pairwise(arguments)
    in_numpy = bool(row.for_numpy) and by_numpy
    advice = with_extra(row.for_numpy if in_numpy else row.extra)
    if row.for_numpy and not in_numpy:
        advice += f"; the extra {row.for_numpy!r} is enough for --engine numpy"
    return f"this subcommand needs a package that is not installed ({error}): {advice}"


def message(error: Exception) -> str:
    """What the user is told of an error, whatever strangers' words are in it."""
    if isinstance(error, OSError) and error.filename is not None:
        return shortened(in_a_line(f"{error.filename}: {error.strerror}"))
    return shown(shortened(str(error)))


def exit_code(error: Exception) -> int:
    """What becomes of it on the command line; see `ggufphys.errors`."""
    if isinstance(error, UnsupportedError):
        return UNSUPPORTED
    if isinstance(error, GGUFError | OSError):
        return UNREADABLE
    if isinstance(error, ValueError | MissingExtraError):
        return USAGE
    return FAILED
