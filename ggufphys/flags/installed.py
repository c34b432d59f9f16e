"""`--llama-build`, asked of a command that runs llama.cpp itself: it can be no other than the one that is installed."""

import argparse
from typing import Any, Final, NoReturn

from ggufphys.flags.parser import Parser

FLAG: Final = "--llama-build"


def refuse_build(parser: argparse.ArgumentParser) -> None:
    """Say why there is no `--llama-build` when somebody asks for it."""
    if isinstance(parser, Parser):
        parser.when_needed(_declare)
    else:
        _declare(parser)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(FLAG, action=_Refused, nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


class _Refused(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> NoReturn:
        from ggufphys.builds.asked import installed_words  # which asks the library in a child process

        parser.error(
            f"{FLAG}: this runs the llama.cpp that is installed, {installed_words()}, and predicts for it; "
            "`ggufphys inspect` and `ggufphys fit` predict for any other"
        )
