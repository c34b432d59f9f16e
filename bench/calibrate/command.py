"""`ggufphys bench calibrate`: what this machine's rates are, for predictions of speed; at most a minute."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ggufphys.errors import GGUFPhysError
from ggufphys.flags.numbers import counts
from ggufphys.machine.children import describe, environment, module_command
from ggufphys.machine.output import whole_file
from ggufphys.report.inspection import dumps
from ggufphys.report.progress import Steps
from ggufphys.report.speed import machine_text
from ggufphys.speed import kept
from ggufphys.speed.rates import Machine
from server.engine.llama.library import require_library


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--threads, --json, where to."""
    parser.add_argument("--json", action="store_true", help="the calibration as one JSON document on stdout")
    parser.add_argument(
        "--threads", type=counts(1), metavar="N,...",
        help="numbers of threads to measure (default: 1, and one for each physical core)",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there, not where predictions look")


def run(args: argparse.Namespace) -> int:
    """Measure, keep, and print what was found."""
    path = args.output or kept.calibration_path()
    place = nullcontext() if path is None else whole_file(path, makes_folder=args.output is None)
    with place as partial:  # before a minute of measuring that could not be kept
        machine = calibrate(sorted(args.threads or default_counts()))
        text = dumps(machine.to_json())
        if partial is not None:
            partial.write_text(text + "\n", encoding="utf-8")
    print(text if args.json else machine_text(machine, path))
    for note in machine.notes:
        print(f"ggufphys: {note}", file=sys.stderr)
    return 0


def calibrate(threads: Sequence[int], *, types: Sequence[int] = ()) -> Machine:
    """Measure in a child process.

    Raises:
        MissingExtraError: there is no llama.cpp to measure with.
        GGUFPhysError: it failed; the message says how.
    """
    require_library()
    found: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(prefix="ggufphys-") as folder,  # here: a child that is killed removes nothing
        Steps("calibrating", total=0, unit="measurements") as steps,
        subprocess.Popen(
            module_command(
                "bench.calibrate.child", json.dumps({"threads": [*threads], "types": [*types], "folder": folder})
            ),
            stdout=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment(spinning=True),
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the child
        ) as child,
    ):
        assert child.stdout is not None
        try:
            for line in child.stdout:
                event = json.loads(line)
                found.update(event)
                if "done" in event:
                    steps.total = event["of"]
                    steps.advance(event["done"] - steps.done)
            code = child.wait()
        except BaseException:
            child.kill()
            raise
    if "machine" not in found:
        raise GGUFPhysError(f"calibrating failed: {found.get('error') or describe(code)}")
    return Machine.from_json(found["machine"])


def default_counts() -> tuple[int, ...]:
    """One thread, and one for each physical core, which is what llama.cpp takes."""
    from server.engine.llama.library import default_threads

    return tuple(sorted({1, default_threads()}))
