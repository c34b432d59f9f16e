"""`ggufphys inspect A --diff B`: in what do two files differ, and what does that cost?"""

import argparse
import sys

from ggufphys.commands.attached import predict_here, with_server
from ggufphys.commands.devices import params_here
from ggufphys.commands.opening import opened
from ggufphys.errors import GGUFPhysError
from ggufphys.flags.others import unread_notes
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.difference import compare
from ggufphys.params import Params
from ggufphys.report.difference import Predictions, difference_json, difference_text
from ggufphys.units import shown


def run_diff(args: argparse.Namespace) -> int:
    """Print what differs; 0 whether or not anything does."""
    params, notes = params_here(args)
    params = with_server(args, params)
    with opened(args.models[0], use_cache=args.use_cache) as a, opened(args.diff, use_cache=args.use_cache) as b:
        show = difference_json if args.json else difference_text
        predictions = _predictions(args, a, b, params)
        print(show(a, b, compare(a, b), predictions))
    for note in notes if predictions else unread_notes(args, ("-m", "-mu", "-hf", "--json", "--no-cache", "--diff")):
        print(f"ggufphys: note: {shown(note)}", file=sys.stderr)
    return 0


def _predictions(args: argparse.Namespace, a: GGUFFile, b: GGUFFile, params: Params) -> Predictions | None:
    """Both as they would be run, or as if llama.cpp took them; None where one of them cannot be predicted."""
    args = argparse.Namespace(**{**vars(args), "force": True})
    try:
        return predict_here(args, a, params), predict_here(args, b, params)
    except (GGUFPhysError, ValueError):
        return None
