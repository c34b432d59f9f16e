"""`ggufphys verify`: do a model's blocks mean the same numbers to us, to ggml's C code and to the gguf package?

With `--logits`: does llama.cpp compute from them what we do? With `--trace`: in every node of the graph?
"""

import argparse
import json
import sys

from tqdm import tqdm

from ggufphys.builds.asked import installed_build
from ggufphys.flags.devices import add_device_arguments
from ggufphys.flags.installed import refuse_build
from ggufphys.flags.numbers import above_zero, at_least, seconds
from ggufphys.flags.parser import belong, exclude, flags_of
from ggufphys.flags.run import params_from
from ggufphys.gguf import GGMLType, open_gguf
from ggufphys.gguf.locate import local_path
from ggufphys.loads.check import require_data, require_loads
from ggufphys.params import Params
from ggufphys.report.progress import Steps
from refengine.checks import report_blocks, report_logits, report_trace
from refengine.checks.blocks import SAMPLE_BYTES, verify
from refengine.checks.trace import THRESHOLD, verify_nodes
from refengine.checks.verify_logits import verify_logits
from refengine.peers.llama_logits import TIMEOUT_S


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a GGUF file, whose tensors are compared, too")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument(
        "--blocks", type=at_least(1), default=10_000, metavar="N", help="random blocks of each type (default 10000)"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, metavar="S", help="of the random blocks or tokens (default 0)"
    )
    parser.add_argument("--types", type=_types, metavar="T[,T...]", help="only these types, for instance Q4_K,Q8_0")
    parser.add_argument(
        "--all", action="store_true", help=f"all of MODEL's data, not a sample of about {SAMPLE_BYTES >> 20} MiB"
    )
    parser.add_argument("--logits", action="store_true", help="compare MODEL's logits with llama.cpp's instead")
    parser.add_argument(
        "--prompt-tokens", type=at_least(1), default=64, metavar="N", help="with --logits: tokens at once (default 64)"
    )
    parser.add_argument(
        "--decode-tokens", type=at_least(0), default=32, metavar="N",
        help="with --logits: tokens after them, one by one (default 32)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=seconds, default=TIMEOUT_S, metavar="S",
        help=f"with --logits: seconds that llama.cpp may go without an answer (default {TIMEOUT_S:g})",
    )  # fmt: skip
    parser.add_argument("--trace", action="store_true", help="with --logits: compare every node of the graph")
    parser.add_argument(
        "--threshold", type=above_zero, metavar="NMSE",
        help="with --trace: the first node that by itself, computed from llama.cpp's operands, differs by more is "
        f"named, and the exit code is 1 (default {THRESHOLD:g}: sums in another order make 1e-13, sums in F16 1e-8, "
        "one tensor with a scale off by 0.1 %% makes 1e-6; on a device of fewer digits what its logits may differ by)",
    )  # fmt: skip
    parser.add_argument("--flash-attn", "-fa", choices=("on", "off"), default="on", help="with --trace (default on)")
    devices = parser.add_argument_group(
        "with --logits, devices that llama.cpp runs layers on (llama.cpp's flags)", argument_default=argparse.SUPPRESS
    )
    add_device_arguments(devices)
    refuse_build(parser)
    parser.add_argument(
        "--against", metavar="FILE",
        help="with --trace: llama.cpp runs this file instead, such as the one that MODEL was quantised from",
    )  # fmt: skip
    belong(parser, "MODEL", "--all", "--logits")
    belong(parser, "--logits", "--prompt-tokens", "--decode-tokens", "--timeout", "--trace", *flags_of(devices))
    belong(parser, "--trace", "--threshold", "--flash-attn", "--against")
    exclude(parser, "--logits", "--blocks", "--types", "--all")


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; returns `Report.exit_code`. Raises as `open_gguf` and `verify` do."""
    if args.logits:
        return _run_trace(args) if args.trace else _run_logits(args)
    model = open_gguf(local_path(args.model)) if args.model is not None else None
    with tqdm(unit="B", unit_scale=True, desc="tensors", leave=False, disable=None if model else True) as bar:
        report = verify(
            model,
            types=args.types,
            n_blocks=args.blocks,
            seed=args.seed,
            budget_bytes=None if args.all else SAMPLE_BYTES,
            progress=bar.update,
        )
    text = json.dumps(report_blocks.as_json(report), indent=2) if args.json else report_blocks.as_text(report)
    sys.stdout.write(text + "\n")
    if model is not None and model.missing_bytes:
        missing = f"{model.missing_bytes:,} bytes of tensor data are missing (header-only or unfinished download)"
        print(f"ggufphys: error: {model.location}: {missing}", file=sys.stderr)
    return report.exit_code


def _run_logits(args: argparse.Namespace) -> int:
    path = local_path(args.model)
    with Steps("comparing logits", unit="tokens", ticks=True) as steps:

        def progress(done: int, total: int, now: str) -> None:
            steps.total = total
            steps.advance(done - steps.done, now)

        report = verify_logits(
            path, n_prompt=args.prompt_tokens, n_decode=args.decode_tokens, seed=args.seed, timeout_s=args.timeout,
            progress=progress, placement=_placement(args),
        )  # fmt: skip
    text = json.dumps(report_logits.as_json(report), indent=2) if args.json else report_logits.as_text(report)
    sys.stdout.write(text + "\n")
    return report.exit_code


def _run_trace(args: argparse.Namespace) -> int:
    path = local_path(args.model)
    against = local_path(args.against) if args.against else None
    if against is not None:
        with open_gguf(against) as gguf:  # its faults are told as MODEL's are, not by llama.cpp
            require_loads(gguf, Params(llama_build=installed_build()))
            require_data(gguf)
    with Steps("comparing nodes", ticks=True):
        report = verify_nodes(
            path,
            against=against,
            n_prompt=args.prompt_tokens,
            n_decode=args.decode_tokens,
            seed=args.seed,
            flash_attn=args.flash_attn == "on",
            threshold=args.threshold,
            timeout_s=args.timeout,
            placement=_placement(args),
        )
    text = json.dumps(report_trace.as_json(report), indent=2) if args.json else report_trace.as_text(report)
    sys.stdout.write(text + "\n")
    return report.exit_code


def _placement(args: argparse.Namespace) -> Params | None:
    """Devices and what goes where, if flags or the environment name devices.

    Raises:
        ValueError: it is said what goes where, and there is no device.
    """
    placement = params_from(args)
    if placement.devices:
        return placement
    if placement != Params(flash_attn=placement.flash_attn):  # which is not about devices
        raise ValueError("flags say what goes to which device, and there is none: name it with --device or --rpc")
    return None


def _types(text: str) -> tuple[GGMLType, ...]:
    names = [name.upper() for name in text.split(",")]
    unknown = [name for name in names if name not in GGMLType.__members__]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no such type: {', '.join(unknown)}; ggml's types are {', '.join(GGMLType.__members__)}"
        )
    return tuple(GGMLType[name] for name in names)
