"""Benchmark: how long do answers take? Each beside what it may take, on headers of published shapes and deeper ones.

usage: python -m bench.predict [--runs N] [--against CHECKOUT] [--json]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.against import in_turn
from bench.processes import run_process
from ggufphys.gguf import open_gguf
from ggufphys.memory.context import context_terms
from ggufphys.memory.predict import Predictor
from ggufphys.params import Device, Params
from ggufphys.plan.sweep import parse_sweep, sweep
from ggufphys.report.inspection import dumps, table
from ggufphys.synth import plan_file, shape_named

SWEEP: Final = "ctx=4k..128k,type_kv=f16,q8_0,np=1,4"
SWEPT: Final = ("llama-3.1-8b", "gemma-3-4b", "qwen3-30b-a3b", "deepseek-v2-lite", "qwen3-next-80b-a3b")
ROUNDS: Final = 2  # there and here in turn
# A dense model of 100 layers, and one of experts as large as any that is run at home.
DEEP: Final = {"dense, 100 layers": ("llama-3.1-8b", 100), "experts, 94 layers": ("qwen3-30b-a3b", 94)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure: the fastest of several runs, since other processes only add to it, and its bar; seconds."""

    name: str
    seconds: float
    bar_s: float


def main() -> int:
    """Print the table; exit code 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.predict", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each (default 5)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout, in turn with this one")
    args = parser.parse_args()
    if args.against is not None:
        return _against(args.against, args.runs, as_json=args.json)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_rows(Path(folder), args.runs))
    if args.json:
        print(dumps([{"name": r.name, "seconds": r.seconds, "bar_s": r.bar_s} for r in rows]))
    else:
        cells = [(r.name, f"{1e3 * r.seconds:.2f}", f"{1e3 * r.bar_s:g}", _verdict(r)) for r in rows]
        print(f"fastest of {args.runs} runs\n")
        print("\n".join(table(("answer", "ms", "at most", ""), cells, right=(1, 2))))
    return 0 if all(r.seconds <= r.bar_s for r in rows) else 1


def _against(checkout: Path, runs: int, *, as_json: bool) -> int:
    """Print each answer's time there and here: the fastest of two rounds, and of the runs in each."""
    there: dict[str, float] = {}
    here: dict[str, float] = {}
    for documents in in_turn("bench.predict", ["--runs", str(runs)], checkout, ROUNDS):
        for seconds, document in zip((there, here), documents, strict=True):
            for row in document:
                seconds[row["name"]] = min(row["seconds"], seconds.get(row["name"], row["seconds"]))
    both = [name for name in here if name in there]
    if as_json:
        print(dumps([{"name": n, "seconds": here[n], "there_s": there[n], "ratio": here[n] / there[n]} for n in both]))
    else:
        cells = [(n, f"{1e3 * there[n]:.2f}", f"{1e3 * here[n]:.2f}", f"{here[n] / there[n]:.2f}") for n in both]
        print(f"fastest of {ROUNDS * runs} runs\n")
        print("\n".join(table(("answer", "ms there", "here", "ratio"), cells, right=(1, 2, 3))))
    return 0


def _verdict(row: Row) -> str:
    return "" if row.seconds <= row.bar_s else "missed"


def _rows(folder: Path, runs: int) -> Iterator[Row]:
    for name, (shape, n_layer) in DEEP.items():
        path = folder / f"{shape}-{n_layer}.gguf"
        write_shape(path, shape, n_layer)
        yield from _predictions(path, name, runs)
    yield from _processes(folder, runs)
    for shape in SWEPT:
        path = folder / f"{shape}.gguf"
        write_shape(path, shape)
        yield from _sweeps(path, shape, runs)


def write_shape(path: Path, name: str, n_layer: int = 0) -> None:
    """The header of a published shape as Q4_K_M, with another number of layers if that is given."""
    shape = shape_named(name)
    if n_layer:
        shape = replace(shape, keys={**shape.keys, "block_count": n_layer})
    path.write_bytes(plan_file(shape).header)


def _predictions(path: Path, name: str, runs: int) -> Iterator[Row]:
    params = Params(n_ctx=8192)
    with open_gguf(path) as gguf:

        def rules() -> None:
            predictor = Predictor(gguf)
            placed = predictor.placed(params)
            context_terms(predictor.h, predictor.rule, predictor.context(params), placed.placement.kv)

        yield Row(
            name=f"predict weights and context: {name}", seconds=_fastest(rules, runs, time.process_time), bar_s=0.005
        )
        whole = _fastest(lambda: Predictor(gguf).predict(params), runs, time.process_time)
        yield Row(name=f"predict_memory: {name}", seconds=whole, bar_s=0.005)


def _processes(folder: Path, runs: int) -> Iterator[Row]:
    def command(*arguments: str) -> Callable[[], None]:
        return lambda: _run([sys.executable, "-m", "ggufphys", *arguments])

    path = folder / "qwen3-next-80b-a3b.gguf"
    write_shape(path, "qwen3-next-80b-a3b")
    with open_gguf(path) as gguf:
        n_tensors = len(gguf.tensors)
    inspect = _fastest(command("inspect", str(path), "-c", "8k"), runs)
    yield Row(name=f"inspect, process: {n_tensors} tensors", seconds=inspect, bar_s=0.25)
    for name, (shape, n_layer) in DEEP.items():
        deep = str(folder / f"{shape}-{n_layer}.gguf")
        for memory in ("24GiB", "24GiB,12GiB"):
            seconds = _fastest(command("fit", deep, "--memory", memory), runs)
            yield Row(name=f"fit, process: {name}, {memory}", seconds=seconds, bar_s=1)
    for memory in ("24GiB,12GiB", "6GiB,4GiB,3GiB"):
        seconds = _fastest(command("fit", str(path), "--memory", memory), runs)
        yield Row(name=f"fit, process: qwen3-next-80b-a3b, {memory}", seconds=seconds, bar_s=1)


_SWEPT_S: Final = {"Vulkan0": 0.0026}  # more to do than for other devices: another order, operations that it lacks


def _sweeps(path: Path, name: str, runs: int) -> Iterator[Row]:
    devices = {"": "", ", one device": "CUDA0", ", one Vulkan device": "Vulkan0"}
    with open_gguf(path) as gguf:
        for where, device in devices.items():
            given = (Device(name=device, memory_bytes=24 << 30),) if device else ()

            def points(params: Params = Params(devices=given)) -> int:  # noqa: B008
                return len(list(sweep(Predictor(gguf).predict, params, parse_sweep(SWEEP))))

            n_points = points()
            seconds = _fastest(points, runs, time.process_time)
            yield Row(
                name=f"sweep, a point: {name}{where}", seconds=seconds / n_points, bar_s=_SWEPT_S.get(device, 0.002)
            )


def _fastest(work: Callable[[], object], runs: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds by the clock: this process' own for what it does itself, which others do not slow down."""
    work()  # byte code and page cache, once for all
    seconds = []
    for _ in range(runs):
        start = clock()
        work()
        seconds.append(clock() - start)
    return min(seconds)


def _run(command: list[str]) -> None:
    run_process(command)


if __name__ == "__main__":
    sys.exit(main())
