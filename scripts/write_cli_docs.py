"""docs/cli.md from the commands' own help texts, so that they cannot part.

usage: python -m scripts.write_cli_docs [--check]      --check: exit 1 if the page is not what would be written
"""

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

from bench.running.program import run_program
from ggufphys.cli import COMMANDS, CommandModule

PAGE: Final = Path(__file__).parents[1] / "docs" / "cli.md"
_HEAD: Final = """# Every subcommand and every flag

`python -m scripts.write_cli_docs` writes this page from the help texts, and a test compares it with them. Flags of
llama.cpp that predict nothing are taken, too, where a command takes llama-server's line, and named in a note.

Exit codes: 0 ok · 1 it does not fit, or a check failed · 2 usage · 3 not a readable GGUF · 4 unsupported ·
130 Ctrl-C · 143 SIGTERM · 129 SIGHUP.
"""


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the page with the help texts, write nothing")
    args = parser.parse_args()
    text = page()
    if not args.check:
        PAGE.write_text(text)
        return 0
    if PAGE.read_text() == text:
        return 0
    print(f"{PAGE} is not what the help texts say: python -m scripts.write_cli_docs writes it", file=sys.stderr)
    return 1


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(line for name in COMMANDS for line in _section(name))]) + "\n"


def _section(name: str) -> Iterator[str]:
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"ggufphys {name}", add_help=False)
    cast("CommandModule", importlib.import_module(command.module)).add_arguments(parser)
    yield f"## `ggufphys {name}`\n"
    yield f"{command.help[0].upper()}{command.help[1:]}.\n"
    for group in parser._action_groups:
        rows = [row for action in group._group_actions for row in _rows(action)]
        if rows:
            title = group.title if group.title not in ("positional arguments", "options") else ""
            yield f"| {title or 'flag'} | |"
            yield "|---|---|"
            yield from rows
            yield ""


def _rows(action: argparse.Action) -> Iterator[str]:
    if action.help == argparse.SUPPRESS:
        return
    value = _value(action)
    shown = f"{', '.join(action.option_strings)}{f' {value}' if value else ''}" if action.option_strings else value
    text = " ".join(((action.help or "") % vars(action)).split()).replace("|", "\\|")  # %(default)s, as argparse does
    shown = shown.replace("|", "\\|")
    yield f"| `{shown}` | {text} |"


def _value(action: argparse.Action) -> str:
    """What stands behind the flag, or in place of a positional argument; nothing where nothing does."""
    if action.nargs == 0:
        return ""
    name = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    name = " ".join(name) if isinstance(name, tuple) else name
    return f"[{name}]" if action.nargs == "?" else f"{name} ..." if action.nargs in ("*", "+") else name


if __name__ == "__main__":
    run_program(main)
