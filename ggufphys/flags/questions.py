"""The flags of questions beside that after memory: other types, many runs, why, how fast, and on what machine."""

import argparse

from ggufphys.flags.numbers import at_least, count
from ggufphys.flags.parser import belong, exclude, flags_of


def add_quantize_arguments(parser: argparse.ArgumentParser) -> None:
    """--quantize, and llama-quantize's options that decide about types, under its names.

    Source: llama.cpp 0c1e570 tools/quantize/quantize.cpp, usage.
    """
    group = parser.add_argument_group("as another file type (llama-quantize's flags)")
    group.add_argument(
        "--quantize", metavar="TYPE,...", help="what the file would weigh and cost as Q4_K_M,Q8_0,..., or as all types"
    )
    group.add_argument(
        "--imatrix", nargs="?", const="", metavar="FILE", help="with an importance matrix (FILE is not read)"
    )
    group.add_argument("--allow-requantize", action="store_true", help="quantised tensors may be quantised again")
    group.add_argument("--leave-output-tensor", action="store_true", help="output.weight keeps its type")
    group.add_argument("--pure", action="store_true", help="all tensors in one type, no mixture")
    group.add_argument("--output-tensor-type", metavar="TYPE", help="the type of output.weight")
    group.add_argument("--token-embedding-type", metavar="TYPE", help="the type of the token embeddings")
    group.add_argument(
        "--tensor-type", action="append", metavar="PATTERN=TYPE", help="the type of tensors whose names match"
    )
    belong(parser, *flags_of(group))


def add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    """--explain."""
    parser.add_argument(
        "--explain", action="store_true", help="what each layer keeps, and each term with its formula and source"
    )


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """--sweep, and the shapes of its answer."""
    group = parser.add_argument_group("over a range of runs")
    group.add_argument(
        "--sweep", metavar="NAME=VALUES,...", action="append",
        help="memory for each combination, such as ctx=4k..128k,type_k=f16,q8_0,np=1,4,8; lo..hi doubles, "
        "lo..hi:step adds",
    )  # fmt: skip
    group.add_argument("--csv", action="store_true", help="the table as CSV, in bytes")
    group.add_argument("--plot", metavar="FILE", help="the table as a picture, too (.png or .svg)")
    belong(parser, *flags_of(group))
    exclude(parser, "--csv", "--json")


def add_costs_arguments(parser: argparse.ArgumentParser) -> None:
    """--costs, and of what they and speed are asked."""
    group = parser.add_argument_group("speed and costs")
    group.add_argument(
        "--costs", action="store_true", help="FLOPs and bytes moved, by what they are for, in prefill and decode"
    )
    group.add_argument(
        "--prefill",
        type=at_least(1),
        metavar="N",
        help="speed and costs of a prompt of N tokens (512, or as many as fit)",
    )  # fmt: skip
    group.add_argument(
        "--budget", metavar="TEXT", help="does '200 in, 100 out, p95 1.5 s' hold, and for how many users at once?"
    )
    group.add_argument("--depth", type=count, metavar="N", help="N tokens are in the cache beforehand (0)")
    group.add_argument("--batch", type=at_least(1), metavar="N", help="N sequences decode together (1)")
    add_machine_argument(group)


def add_machine_argument(group: "argparse._ArgumentGroup") -> None:
    """--on: another machine than this one."""
    group.add_argument(
        "--on", metavar="MACHINE",
        help="on another machine, by its data sheet: m2-air-16gb, rtx-4090, ryzen-9950x; list prints all",
    )  # fmt: skip
