"""`ggufphys doctor [MODEL]`: is this machine set up to run it well? What to mend, why, and by which command."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Final

from ggufphys.builds.asked import installed_build
from ggufphys.errors import UnsupportedError
from ggufphys.flags.idle import idle_notes
from ggufphys.flags.others import add_other_flags, other_flags_notes
from ggufphys.flags.run import add_run_arguments, params_from
from ggufphys.frozen import asdict
from ggufphys.gguf.file import open_gguf
from ggufphys.gguf.locate import local_path
from ggufphys.machine.findings import Finding, Surroundings, findings
from ggufphys.memory.predict import predict_memory
from ggufphys.params import Params

SCHEMA_VERSION: Final = 1
SIGNS: Final = {"ok": "ok", "advice": "advice", "problem": "PROBLEM", "unknown": "unknown"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL and how it is going to be run."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a GGUF file, whose memory is predicted")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    add_run_arguments(parser)
    add_other_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print what was found; exit code 1 if something would go wrong."""
    params = params_from(args, Params(llama_build=installed_build()))
    path = None if args.model is None else local_path(args.model)
    around = Surroundings(
        environ=os.environ,
        process_bytes=0 if path is None else _process_bytes(path, params),
        locks=params.use_mlock,
        n_threads=params.n_threads,
        model=path,
    )
    found = findings(around)
    for note in (*other_flags_notes(args), *idle_notes(args, params)):
        print(f"ggufphys: {note}", file=sys.stderr)
    if args.json:
        document = {
            "schema_version": SCHEMA_VERSION,
            "process_bytes": around.process_bytes or None,
            "findings": [asdict(finding) for finding in found],
        }
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(line for finding in found for line in _lines(finding)))
    return int(any(finding.status == "problem" for finding in found))


def _process_bytes(path: Path, params: Params) -> int:
    with open_gguf(path) as gguf:
        try:
            return predict_memory(gguf, params).process_bytes
        except UnsupportedError:
            return 0


def _lines(finding: Finding) -> list[str]:
    lines = [f"{SIGNS[finding.status]:8}{finding.name}: {finding.found}"]
    if finding.why:
        lines += [f"{'':8}  {finding.why}", f"{'':8}  mend: {finding.mend}"]
    return lines
