"""`ggufphys synth`: a GGUF file in a known model's shape, with random weights."""

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from tqdm import tqdm

from bench.synth.sparse import write_sparse
from ggufphys.flags.numbers import at_least, count
from ggufphys.flags.parser import exclude
from ggufphys.plan.quantize import parse_file_type
from ggufphys.report.inspection import dumps, table
from ggufphys.synth.catalogue import Shape, shape_named, shapes
from ggufphys.synth.plan import SynthPlan, plan_file, typed_tensors
from ggufphys.units import format_bytes, format_count

SCHEMA_VERSION: Final = 1
LISTED_TYPE: Final = "Q4_K_M"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    parser.add_argument("shape", nargs="?", help="name of the shape, see --list")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write it")
    parser.add_argument("--type", default="Q4_K_M", help="file type by llama-quantize's name (default Q4_K_M)")
    parser.add_argument("--sparse", action="store_true", help="header and a hole: full length, next to no disk")
    parser.add_argument("--layers", type=at_least(1), metavar="N", help="only the first N layers")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="same seed, same file (default 0)")
    parser.add_argument("--force", action="store_true", help="overwrite FILE")
    parser.add_argument("--list", action="store_true", help="list the shapes")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no report")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    exclude(parser, "--list", "--output", "--type", "--sparse", "--layers", "--seed", "--force", "--quiet")
    exclude(parser, "--sparse", "--seed")


def run(args: argparse.Namespace) -> int:
    """Do what the arguments say; returns the exit code.

    Raises:
        ValueError: an unknown shape or file type, or a combination of arguments that makes no sense.
        UnsupportedError: there is no tensor table for the shape.
        OutputError: the file cannot be written.
    """
    if args.list:
        print(_list_json() if args.json else _list_text())
        return 0
    if args.shape is None:
        raise ValueError("no shape given (--list shows them)")
    if args.output is None:
        raise ValueError("no file to write given (-o FILE)")
    shape = shape_named(args.shape)
    plan = plan_file(shape.cut(args.layers) if args.layers is not None else shape, parse_file_type(args.type))
    path: Path = args.output
    if path.is_file() and not args.force:
        raise ValueError(f"{path} exists (--force overwrites it)")
    start = time.perf_counter()
    try:
        _write(plan, path, args)
    except KeyboardInterrupt:
        print(f"\n{path} was not written, no part of it is left", file=sys.stderr)
        raise
    seconds = time.perf_counter() - start
    if args.json:
        print(_report_json(plan, path, args, seconds))
    elif not args.quiet:
        print(_report_text(plan, path, args, seconds))
    return 0


def _write(plan: SynthPlan, path: Path, args: argparse.Namespace) -> None:
    if args.sparse:
        write_sparse(plan, path)
        return
    from bench.synth.write import write_file  # here, because numpy takes longer to import than a sparse file to write

    hidden = args.json or args.quiet or not sys.stderr.isatty()
    with tqdm(
        total=plan.file_bytes, desc=path.name, unit="B", unit_scale=True, unit_divisor=1024, disable=hidden
    ) as bar:
        write_file(plan, path, seed=args.seed, progress=bar.update)


def _report_text(plan: SynthPlan, path: Path, args: argparse.Namespace, seconds: float) -> str:
    what = f"{plan.shape.name}, {plan.file_type}, {format_count(plan.n_params)} weights in {len(plan.tensors)} tensors"
    if args.sparse:
        return f"{path}: {what}, {format_bytes(plan.file_bytes)} long, all zeros (sparse)"
    rate = format_bytes(int(plan.file_bytes / seconds))
    return f"{path}: {what}, {format_bytes(plan.file_bytes)} in {seconds:.1f} s ({rate}/s)"


def _report_json(plan: SynthPlan, path: Path, args: argparse.Namespace, seconds: float) -> str:
    report = {
        "schema_version": SCHEMA_VERSION,
        "path": str(path),
        "shape": plan.shape.name,
        "architecture": plan.shape.architecture,
        "file_type": plan.file_type,
        "n_layer": plan.shape.n_layer,
        "n_params": plan.n_params,
        "n_tensors": len(plan.tensors),
        "header_bytes": len(plan.header),
        "file_bytes": plan.file_bytes,
        "sparse": args.sparse,
        "seed": args.seed,
        "seconds": seconds,
    }
    return dumps(report)


def _list_text() -> str:
    header = ("shape", "architecture", "layers", "weights", LISTED_TYPE, "source")
    rows = []
    for shape in shapes().values():
        n_params, nbytes = _weight(shape)
        numbers = (str(shape.n_layer), format_count(n_params), format_bytes(nbytes))
        rows.append((shape.name, shape.architecture, *numbers, shape.source))
    return "\n".join(table(header, rows, right=(2, 3, 4)))


def _list_json() -> str:
    rows = []
    for shape in shapes().values():
        n_params, nbytes = _weight(shape)
        row = {"name": shape.name, "architecture": shape.architecture, "n_layer": shape.n_layer, "n_params": n_params}
        rows.append({**row, "tensor_bytes": {LISTED_TYPE: nbytes}, "source": shape.source})
    return dumps({"schema_version": SCHEMA_VERSION, "shapes": rows})


def _weight(shape: Shape) -> tuple[int, int]:
    tensors = typed_tensors(shape, LISTED_TYPE)
    return sum(t.n_elements for t in tensors), sum(t.nbytes for t in tensors)
