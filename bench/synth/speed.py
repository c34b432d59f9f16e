"""Benchmark: `ggufphys synth` against writing as many zeros, as whole processes, in turn.

usage: python -m bench.synth.speed [--shape NAME] [--type TYPE] [--folder FOLDER] [--runs N] [--json]
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.running.processes import ProcessRun, run_process
from bench.running.program import run_program
from ggufphys.report.inspection import dumps, table
from ggufphys.synth import plan_file, shape_named
from ggufphys.units import format_bytes

ZEROS: Final = """
import os, sys
file, left, zeros = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o666), int(sys.argv[2]), bytes(8 << 20)
while left > 0:
    left -= os.write(file, zeros[:left])
"""


def main() -> int:
    """Run both in turn and print medians and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m bench.synth.speed", description=__doc__)
    parser.add_argument("--shape", default="mistral-7b", help="name of the shape (default mistral-7b)")
    parser.add_argument("--type", default="Q4_K_M", help="file type (default Q4_K_M)")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each (default 3)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = parser.parse_args()
    file_bytes = plan_file(shape_named(args.shape), args.type).file_bytes
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "model.gguf"
        synth = ["synth", args.shape, "--type", args.type, "-o", str(path), "--quiet"]
        commands = {
            "ggufphys synth": [sys.executable, "-m", "ggufphys", *synth],
            "zeros": [sys.executable, "-c", ZEROS, str(path), str(file_bytes)],
        }
        runs: dict[str, list[ProcessRun]] = {name: [] for name in commands}
        for _ in range(args.runs):
            for name, command in commands.items():
                runs[name].append(run_process(command))
                path.unlink()
    wall_s = {name: statistics.median(r.wall_s for r in rs) for name, rs in runs.items()}
    peak = {name: max(r.peak_rss_bytes for r in rs) for name, rs in runs.items()}
    ratio = wall_s["ggufphys synth"] / wall_s["zeros"]
    if args.json:
        print(dumps({"file_bytes": file_bytes, "wall_s": wall_s, "peak_rss_bytes": peak, "ratio": ratio}))
        return 0
    rows = [
        (name, f"{wall_s[name]:.1f}", f"{format_bytes(int(file_bytes / wall_s[name]))}/s", format_bytes(peak[name]))
        for name in commands
    ]
    print(f"{args.shape}, {args.type}: {file_bytes:,} bytes; {args.runs} runs in turn\n")
    print("\n".join(table(("process", "wall s (median)", "rate", "peak RSS"), rows, right=(1, 2, 3))))
    print(f"\nsynth / zeros: {ratio:.2f}")
    return 0


if __name__ == "__main__":
    run_program(main)
