"""Benchmark: `ggufphys inspect` against gguf's GGUFReader on a large vocabulary, as whole processes, in turn.

usage: python -m bench.reader [--runs N] [--tokens N | --model FILE] [--against CHECKOUT] [--json]
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.running.against import HERE, compile_code, inspecting
from bench.running.processes import ProcessRun, run_process
from bench.running.program import existing_checkout, run_program
from ggufphys.frozen import replace
from ggufphys.gguf import GGUFFile, open_gguf
from ggufphys.gguf.writer import WriteValue, data_bytes, encode_header
from ggufphys.report.inspection import dumps, table
from ggufphys.synth import shape_named
from ggufphys.synth.plan import typed_tensors
from ggufphys.units import format_bytes

N_TOKENS: Final = 262_144
N_MERGES: Final = 514_906  # of as many tokens; of fewer in proportion
SHAPE: Final = "gemma-3-4b"


def write_vocabulary_file(path: Path, n_tokens: int) -> None:
    """A header of about 16 MB: a published shape's keys and tensors, 262,144 tokens, 514,906 merges."""
    shape = replace(shape_named(SHAPE), n_vocab=n_tokens)
    metadata: dict[str, WriteValue] = {
        "general.architecture": shape.architecture,
        "general.name": "a large vocabulary",
        **{f"{shape.architecture}.{key}": value for key, value in shape.keys.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [f"token-{i:06d}" for i in range(n_tokens)],
        "tokenizer.ggml.merges": [f"left{i % 999} {i // 999}" for i in range(_n_merges(n_tokens))],
        "tokenizer.ggml.token_type": [1] * n_tokens,
        "tokenizer.ggml.scores": [0.0] * n_tokens,
    }
    tensors = typed_tensors(shape, "Q4_K_M")
    header = encode_header(metadata, tensors)
    path.write_bytes(header)
    os.truncate(path, len(header) + data_bytes(tensors))  # a hole: GGUFReader wants the data to be there


def _n_merges(n_tokens: int) -> int:
    return N_MERGES * n_tokens // N_TOKENS


def _long_arrays(gguf: GGUFFile) -> Iterator[str]:
    for key, what in (("tokenizer.ggml.tokens", "tokens"), ("tokenizer.ggml.merges", "merges")):
        array = gguf.get_array(key)
        if array is not None:
            yield f"{len(array):,} {what}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.reader", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each (default 3)")
    parser.add_argument("--tokens", type=int, default=N_TOKENS, metavar="N", help=f"in the vocabulary ({N_TOKENS})")
    parser.add_argument("--model", type=Path, metavar="FILE", help="a GGUF file to measure with instead")
    parser.add_argument(
        "--against", type=existing_checkout, metavar="CHECKOUT", help="another checkout, in turn with this one"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--write", type=Path, metavar="FILE", help="only write the file that is measured with")
    return parser.parse_args()


def measure(path: Path, runs: int, against: Path | None) -> dict[str, list[ProcessRun]]:
    """Runs of each process, by its name, in turn."""
    inspect = ("inspect", str(path), "-c", "8192")
    commands = {
        "ggufphys inspect": inspecting(HERE, *inspect),
        **({} if against is None else {"inspect, the other": inspecting(against, *inspect)}),
        "gguf.GGUFReader": [sys.executable, "-c", "import sys, gguf; gguf.GGUFReader(sys.argv[1])", str(path)],
        "python alone": [sys.executable, "-c", "pass"],
    }
    for checkout in (HERE, *([] if against is None else [against])):
        compile_code(checkout)
    run_process(commands["ggufphys inspect"])  # page cache, once for all
    found: dict[str, list[ProcessRun]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            found[name].append(run_process(command))
    return found


def main() -> int:
    """Run both in turn and print medians and their ratio."""
    args = _arguments()
    if args.write is not None:
        write_vocabulary_file(args.write, args.tokens)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = args.model or Path(folder) / "vocabulary.gguf"
        if args.model is None:
            # In a process of its own: a child's peak RSS starts at what its parent held when it was forked.
            run_process([sys.executable, "-m", "bench.reader", "--tokens", str(args.tokens), "--write", str(path)])
        with open_gguf(path) as gguf:
            header_bytes = gguf.shards[0].header.data_offset
            sizes = f"{header_bytes:,} bytes, {' and '.join(_long_arrays(gguf))}"
        runs = measure(path, args.runs, args.against)
    wall_s = {name: statistics.median(r.wall_s for r in rs) for name, rs in runs.items()}
    cpu_s = {name: statistics.median(r.cpu_s for r in rs) for name, rs in runs.items()}
    peak = {name: max(r.peak_rss_bytes for r in rs) for name, rs in runs.items()}
    ratio = wall_s["gguf.GGUFReader"] / wall_s["ggufphys inspect"]
    if args.json:
        print(
            dumps(
                {"header_bytes": header_bytes, "wall_s": wall_s, "cpu_s": cpu_s, "peak_rss_bytes": peak, "ratio": ratio}
            )
        )
        return 0
    alone = cpu_s["python alone"]
    rows = [
        (name, f"{wall_s[name]:.3f}", f"{cpu_s[name]:.3f}", f"{cpu_s[name] / alone:.1f}", format_bytes(peak[name]))
        for name in runs
    ]
    print(f"a header of {sizes}; {args.runs} runs in turn\n")
    print("\n".join(table(("process", "wall s (median)", "CPU s", "x python", "peak RSS"), rows, right=(1, 2, 3, 4))))
    print(f"\nGGUFReader / inspect: {ratio:.0f}x")
    return 0


if __name__ == "__main__":
    run_program(main)
