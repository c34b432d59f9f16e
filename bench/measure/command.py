"""`ggufphys measure MODEL`: runs it in a child process and sets what was measured beside what was predicted."""

import argparse
import sys
from pathlib import Path

from bench.measure import report
from bench.measure.devices import llama_devices
from bench.measure.llama import measure
from bench.measure.measurement import ENGINES, PROCESS_TOLERANCE
from bench.running.progress import Progress
from ggufphys.builds.asked import installed_build
from ggufphys.flags.idle import idle_notes
from ggufphys.flags.numbers import count
from ggufphys.flags.others import add_other_flags, other_flags_notes
from ggufphys.flags.run import add_run_arguments, params_from
from ggufphys.flags.server import add_as_argument, served
from ggufphys.gguf.locate import local_path
from ggufphys.params import Params
from server.engine.llama.library import require_library


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, what to run, what to print."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "model", nargs="?", default=argparse.SUPPRESS, metavar="MODEL", help="a GGUF file; of a split model any shard"
    )
    model.add_argument("-m", "--model", metavar="MODEL", help="the same, as llama.cpp has it")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("-n", "--predict", type=count, default=16, metavar="N", help="tokens to decode (default 16)")
    parser.add_argument(
        "-p", "--prompt", type=count, default=None, metavar="N", help="tokens to prefill (default: one physical batch)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw predicted and measured bytes (.png or .svg)")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"exit 1 unless model and context are exact and the process within {PROCESS_TOLERANCE:.0%}%",
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default=ENGINES[0],
        help="what runs it: llama.cpp, or this project's model in numpy (default llama.cpp)",
    )  # fmt: skip
    parser.add_argument(
        "--hold", choices=("f32", "quantised"),
        help="numpy: keep weights dequantised in memory, or dequantise them piece by piece (default f32)",
    )  # fmt: skip
    add_run_arguments(parser, n_ctx=4096)  # a trained length of 131,072 is rarely what anybody wants to wait for
    add_as_argument(parser)
    add_other_flags(parser, but=("-n", "--predict", "-p", "--prompt"))


def run(args: argparse.Namespace) -> int:
    """Measure and print; exit 1 when the child failed even without extra buffers, or --check does not hold."""
    if args.plot is not None:
        report.require_plot(args.plot)
    for name in ("use_amx", "use_blas"):
        if hasattr(args, name):
            raise ValueError(f"--{name.removeprefix('use_')}: it is the installed llama.cpp that runs, and says itself")
    if args.hold and args.engine != "numpy":
        raise ValueError("--hold: llama.cpp holds weights in its own way; it is for --engine numpy")
    with Progress(enabled=sys.stderr.isatty() and not args.json) as progress:
        path = local_path(args.model)
        lengths = {"n_prompt": args.prompt, "n_predict": args.predict}
        if args.engine == "numpy":
            from bench.measure.numpy_engine import measure_numpy

            result = measure_numpy(path, params_from(args), hold=args.hold or "f32", **lengths, on_event=progress)
        else:
            require_library()
            params = params_from(args, Params(llama_build=installed_build()), found=llama_devices)
            params = served(args, params)
            result = measure(path, params, **lengths, on_event=progress)
    try:  # the picture first: a reader of the table who has seen enough ends this
        if args.plot is not None and result.child.ok:
            report.plot(result, args.plot)
    finally:
        print(report.as_json(result) if args.json else report.as_text(result))
    for note in (*other_flags_notes(args), *idle_notes(args, result.params), *result.notes):
        print(f"ggufphys: {note}", file=sys.stderr)
    return 1 if not result.child.ok or (args.check and not result.holds) else 0
