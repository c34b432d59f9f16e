"""`ggufphys inspect MODEL --log FILE`: was the prediction right?"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufphys.commands.attached import ATTACHING
from ggufphys.commands.opening import opened
from ggufphys.flags.others import other_flags_notes, unread_notes
from ggufphys.flags.run import given
from ggufphys.flags.server import run_as, slots_given
from ggufphys.graph.devices.runs import require_model
from ggufphys.units import shortened, shown

if TYPE_CHECKING:
    from ggufphys.logs.runs import LoggedRun


def run_log(args: argparse.Namespace) -> int:
    """Print the comparison; exit code 1 when a figure that is called exact differs, 4 for an unknown architecture."""
    from ggufphys.plan.reconcile import reconcile
    from ggufphys.report import log as report_log  # what other questions do not need

    if not args.log:
        raise ValueError("--log: the name is empty, expected a file, or - for stdin")
    try:
        runs = _runs(args.log)
    except ValueError as error:
        raise ValueError(f"--log {args.log}: {error}") from error
    with opened(args.models[0], use_cache=args.use_cache) as gguf:
        require_model(gguf)
        try:
            result = reconcile(gguf, runs, _asked(args))
        except ValueError as error:
            raise ValueError(f"--log {args.log}: {error}") from error
        print(report_log.log_json(gguf, result) if args.json else report_log.log_text(gguf, result))
    for note in (*other_flags_notes(args), *unread_notes(args, {*args.flags_given}.difference(ATTACHING))):
        print(f"ggufphys: note: {note}", file=sys.stderr)
    if result.unsupported:
        print(f"ggufphys: error: {shown(shortened(str(result.unsupported)))}", file=sys.stderr)
        return 4
    return 0 if result.holds else 1


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """What flags ask for, less what llama-server chooses otherwise: what that came to, the log says."""
    fields = given(args)
    if run_as(args) == "server":
        if not slots_given(args):
            fields.pop("kv_unified", None)
        if fields.get("embeddings"):
            fields.pop("n_batch", None)
    return fields


def _runs(name: str) -> "tuple[LoggedRun, ...]":
    from ggufphys.logs.lines import log_lines
    from ggufphys.logs.runs import parse_log

    if name == "-":
        return parse_log(log_lines(sys.stdin.buffer))
    with Path(name).open("rb") as file:
        return parse_log(log_lines(file))
