"""`ggufphys inspect MODEL --template`: what is wrong with the file's chat template? Other rooms render and tokenize."""

import argparse
import importlib
import sys

from ggufphys.commands.opening import opened
from ggufphys.errors import MissingExtraError, with_extra
from ggufphys.flags.others import unread_notes


def run_template(args: argparse.Namespace) -> int:
    """Print what the template makes of conversations, and the findings; exit code 1 if it cannot be used.

    Raises:
        MissingExtraError: the server's packages are not installed.
    """
    try:
        lint = importlib.import_module(args.linter).lint  # another room's (`ggufphys.cli`, COMMANDS)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == args.linter.split(".")[0]:
            raise  # not a missing package but a fault of ours
        raise MissingExtraError(f"--template renders as the server does ({error}): {with_extra('serve')}") from error
    open_tokenizer = importlib.import_module(f"{args.numpy_room}.text.open").open_tokenizer
    with opened(args.models[0], use_cache=args.use_cache) as gguf:
        answer, code = lint(gguf, open_tokenizer(gguf), as_json=args.json)
    print(answer)
    for note in unread_notes(args, ("-m", "-mu", "-hf", "--json", "--no-cache", "--template")):
        print(f"ggufphys: note: {note}", file=sys.stderr)
    return int(code)
