"""The parser of a subcommand's arguments: errors in a line, flags that are declared when somebody uses one.

And no flag that is overlooked: which belong to which, and which are of no use beside which, is declared with them.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NoReturn

from ggufphys.errors import USAGE
from ggufphys.units import shortened

MIN_GUESSED: Final = 3  # letters; of fewer everything is alike


@contextmanager
def _untranslated() -> Iterator[None]:
    """Within, argparse says what it has to say as it is: it looks for translations for milliseconds, and finds none."""
    translated = vars(argparse)["_"]
    vars(argparse)["_"] = str
    try:
        yield
    finally:
        vars(argparse)["_"] = translated


class Parser(argparse.ArgumentParser):
    """An ArgumentParser for long tables of flags, of which a command line has few."""

    def __init__(self, **options: Any) -> None:
        # argparse makes a formatter with each argument; the terminal's width, for which it imports much, is help's.
        with _untranslated():
            super().__init__(formatter_class=partial(argparse.HelpFormatter, width=80), **options)
        self._declarations: list[Callable[[argparse.ArgumentParser], None]] = []
        self._given: set[str] = set()  # all names of what the command line has
        self._named: dict[str, None] = {}  # the first name of each, in its order
        self._relations: list[tuple[str, tuple[str, ...], bool]] = []

    def when_needed(self, declare: Callable[[argparse.ArgumentParser], None]) -> None:
        """Declare further flags, without a line in --help, once a command line has one that is not known."""
        self._declarations.append(declare)

    def relate(self, owner: str, flags: tuple[str, ...], *, together: bool) -> None:
        """Refuse the flags unless, or if, the owner is given, too; see `belong` and `exclude`."""
        self._relations.append((owner, flags, together))

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it, and `flags_given`: the first name of each flag that the command line has.

        Raises:
            ValueError: flags that would be overlooked.
        """
        words = tuple(args or ())
        known = self._option_string_actions
        if any(word.startswith("-") and word not in known and word.partition("=")[0] not in known for word in words):
            while self._declarations:
                self._declarations.pop()(self)
        self._given.clear()
        self._named.clear()
        with _untranslated():
            found = super().parse_args(words if args is not None else None, namespace)
        for owner, flags, together in self._relations:
            if (owner in self._given) is not together and (lost := [flag for flag in flags if flag in self._given]):
                names = " and ".join(lost)
                raise ValueError(
                    f"{names}: for {owner}, which is not given" if together else f"{names}: not with {owner}"
                )
        found.flags_given = tuple(self._named)
        return found

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """As argparse has it, which calls this with each argument that it finds, and for positional ones that lack."""
        if action.option_strings:
            self._given.update(action.option_strings)
            self._named[action.option_strings[0]] = None
            if action.nargs is None and arg_strings == ["--"]:  # --flag=--, which argparse loses before Python 3.13
                return self._get_value(action, "--")
        elif arg_strings:
            self._given.add(str(action.metavar))
        return super()._get_values(action, arg_strings)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """As argparse has it; a file without a name, of a variable that is not set, is not the current folder."""
        if not arg_string and getattr(action.type, "__name__", "") == "Path":
            raise argparse.ArgumentError(action, "the name is empty")
        return super()._get_value(action, arg_string)

    def format_help(self) -> str:
        """As argparse has it, as wide as the terminal is: two columns less, for which it would import `shutil`."""
        self.formatter_class = partial(argparse.HelpFormatter, width=_columns() - 2)
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Exit code 2, with the message in a line: a usage of forty lines above would hide it."""
        unknown = message.removeprefix("unrecognized arguments: ").split() if "unrecognized" in message else []
        hints = "".join(alike(word.partition("=")[0], self._option_string_actions) for word in unknown)
        files = (word for word in unknown if word.startswith("-") and os.path.isfile(word))  # noqa: PTH113
        hints += "".join(f"a file of that name is ./{word}\n" for word in files)
        self.exit(USAGE, f"ggufphys: error: {shortened(message)}\n{hints}`{self.prog} --help` lists the flags\n")


def _columns() -> int:
    """How wide the terminal is, or COLUMNS says that it is; 80 where there is none."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80 if sys.__stdout__ is not None else 80
    except (OSError, ValueError):
        return 80


def belong(parser: argparse.ArgumentParser, owner: str, *flags: str) -> None:
    """Refuse these flags where the one (or the positional argument) that they are about is not given."""
    if isinstance(parser, Parser):
        parser.relate(owner, flags, together=True)


def exclude(parser: argparse.ArgumentParser, owner: str, *flags: str) -> None:
    """Refuse these flags beside one that makes them useless."""
    if isinstance(parser, Parser):
        parser.relate(owner, flags, together=False)


def flags_of(group: "argparse._ArgumentGroup") -> tuple[str, ...]:
    """The first name of each flag of a group."""
    return tuple(action.option_strings[0] for action in group._group_actions)


def alike(word: str, known: Iterable[str]) -> str:
    """A line that names what was meant perhaps, or nothing."""
    from difflib import get_close_matches  # when something is wrong alone

    found = get_close_matches(word, known, n=3, cutoff=0.7) if len(word) > MIN_GUESSED else []
    return f"did you mean {' or '.join(found)}?\n" if found else ""
