"""The parser of a subcommand's arguments: errors in a line, and flags that are declared when somebody uses one."""

import argparse
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NoReturn

MIN_GUESSED: Final = 3  # letters; of fewer everything is alike
USAGE: Final = 2  # the exit code


class Parser(argparse.ArgumentParser):
    """An ArgumentParser for long tables of flags, of which a command line has few."""

    def __init__(self, **options: Any) -> None:
        # argparse makes a formatter with each argument; the terminal's width, for which it imports much, is help's.
        super().__init__(formatter_class=partial(argparse.HelpFormatter, width=80), **options)
        self._declarations: list[Callable[[argparse.ArgumentParser], None]] = []

    def when_needed(self, declare: Callable[[argparse.ArgumentParser], None]) -> None:
        """Declare further flags, without a line in --help, once a command line has one that is not known."""
        self._declarations.append(declare)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it."""
        words = tuple(args or ())
        known = self._option_string_actions
        if any(word.startswith("-") and word not in known and word.partition("=")[0] not in known for word in words):
            while self._declarations:
                self._declarations.pop()(self)
        return super().parse_args(words if args is not None else None, namespace)

    def format_help(self) -> str:
        """As argparse has it."""
        self.formatter_class = argparse.HelpFormatter
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Exit code 2, with the message in a line: a usage of forty lines above would hide it."""
        unknown = message.removeprefix("unrecognized arguments: ").split() if "unrecognized" in message else []
        hints = "".join(alike(word.partition("=")[0], self._option_string_actions) for word in unknown)
        hints += "".join(f"a file of that name is ./{word}\n" for word in unknown if os.path.isfile(word))  # noqa: PTH113
        self.exit(USAGE, f"ggufphys: error: {message}\n{hints}`{self.prog} --help` lists the flags\n")


def alike(word: str, known: Iterable[str]) -> str:
    """A line that names what was meant perhaps, or nothing."""
    from difflib import get_close_matches  # when something is wrong alone

    found = get_close_matches(word, known, n=3, cutoff=0.7) if len(word) > MIN_GUESSED else []
    return f"did you mean {' or '.join(found)}?\n" if found else ""
