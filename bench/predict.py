"""Benchmark: how long do answers take? Each beside what it may take, on headers of published shapes and deeper ones.

usage: python -m bench.predict [--runs N] [--only WORDS] [--against CHECKOUT] [--json]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import prod
from pathlib import Path
from typing import Final

from bench.running.against import HERE, compile_code, measured_in_turn
from bench.running.processes import run_process
from bench.running.program import existing_checkout, run_program
from ggufphys.gguf import GGUFFile, open_gguf
from ggufphys.memory.context import context_terms
from ggufphys.memory.predict import Predictor
from ggufphys.params import Device, Params
from ggufphys.plan.sweep import parse_sweep, sweep
from ggufphys.report.inspection import dumps, table
from ggufphys.synth import plan_file, shape_named, shapes

SWEEP: Final = "ctx=4k..128k,type_kv=f16,q8_0,np=1,4"
SWEPT: Final = ("llama-3.1-8b", "gemma-3-4b", "qwen3-30b-a3b", "deepseek-v2-lite", "qwen3-next-80b-a3b")
LENGTHS: Final = 40  # in a row
ROUNDS: Final = 2  # of each answer, there and here in turn
# A dense model of 100 layers, and one of experts as large as any that is run at home.
DEEP: Final = {"dense, 100 layers": ("llama-3.1-8b", 100), "experts, 94 layers": ("qwen3-30b-a3b", 94)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is asked, how to time it, and its bar: seconds."""

    name: str
    measure: Callable[[], float]
    bar_s: float


def main() -> int:
    """Print the table; exit code 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.predict", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each (default 5)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--only", default="", metavar="WORDS", help="only answers whose names hold these words")
    parser.add_argument(
        "--against", type=existing_checkout, metavar="CHECKOUT", help="another checkout, each answer in turn"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        answers = [answer for answer in _answers(Path(folder), args.runs) if args.only in answer.name]
        if args.against is not None:
            return _against(args.against, answers, args.runs, as_json=args.json)
        seconds = [answer.measure() for answer in answers]
    timed = list(zip(answers, seconds, strict=True))
    if args.json:
        print(dumps([{"name": a.name, "seconds": s, "bar_s": a.bar_s} for a, s in timed]))
    else:
        cells = [(a.name, f"{1e3 * s:.2f}", f"{1e3 * a.bar_s:g}", "" if s <= a.bar_s else "missed") for a, s in timed]
        print(f"fastest of {args.runs} runs\n")
        print("\n".join(table(("answer", "ms", "at most", ""), cells, right=(1, 2))))
    return 0 if all(s <= a.bar_s for a, s in timed) else 1


def _against(checkout: Path, answers: Sequence[Answer], runs: int, *, as_json: bool) -> int:
    """Print each answer's time there and here, measured one after the other: the machine's pace moves."""
    for root in (checkout, HERE):
        compile_code(root)
    rows = []
    for answer in answers:
        rounds = list(measured_in_turn("bench.predict", ["--runs", str(runs), "--only", answer.name], checkout, ROUNDS))
        there, here = (min(documents[side][0]["seconds"] for documents in rounds) for side in (0, 1))
        rows.append((answer.name, there, here))
    if as_json:
        print(dumps([{"name": n, "seconds": here, "there_s": there, "ratio": here / there} for n, there, here in rows]))
    else:
        cells = [(n, f"{1e3 * there:.2f}", f"{1e3 * here:.2f}", f"{here / there:.2f}") for n, there, here in rows]
        print(f"fastest of {ROUNDS * runs} runs\n")
        print("\n".join(table(("answer", "ms there", "here", "ratio"), cells, right=(1, 2, 3))))
    return 0


def _answers(folder: Path, runs: int) -> Iterator[Answer]:
    for name, (shape, n_layer) in DEEP.items():
        yield from _predictions(partial(_shape, folder, shape, n_layer), name, runs)
    yield from _processes(folder, runs)
    for shape in SWEPT:
        yield from _sweeps(partial(_shape, folder, shape), shape, runs)


def _shape(folder: Path, name: str, n_layer: int = 0) -> Path:
    """The file that `write_shape` writes, once."""
    path = folder / f"{name}-{n_layer}.gguf"
    if not path.exists():
        write_shape(path, name, n_layer)
    return path


def write_shape(path: Path, name: str, n_layer: int = 0) -> None:
    """The header of a published shape as Q4_K_M, with another number of layers if that is given."""
    shape = shape_named(name)
    if n_layer:
        shape = replace(shape, keys={**shape.keys, "block_count": n_layer})
    path.write_bytes(plan_file(shape).header)


def _predictions(path: Callable[[], Path], name: str, runs: int) -> Iterator[Answer]:
    params = Params(n_ctx=8192)

    def rules(gguf: GGUFFile) -> None:
        predictor = Predictor(gguf)
        placed = predictor.placed(params)
        context_terms(predictor.h, predictor.rule, predictor.context(params), placed.placement.kv)

    def whole(gguf: GGUFFile) -> None:
        Predictor(gguf).predict(params)

    for question, work in (("predict weights and context", rules), ("predict_memory", whole)):
        yield Answer(name=f"{question}: {name}", measure=partial(_of_file, path, work, runs), bar_s=0.005)


def _of_file(path: Callable[[], Path], work: Callable[[GGUFFile], object], runs: int) -> float:
    with open_gguf(path()) as gguf:
        return _fastest(partial(work, gguf), runs, time.process_time)


def _processes(folder: Path, runs: int) -> Iterator[Answer]:
    def process(name: str, bar_s: float, shape: str, n_layer: int, command: str, *arguments: str) -> Answer:
        def measure() -> float:
            path = str(_shape(folder, shape, n_layer))
            return _fastest(lambda: _run([sys.executable, "-m", "ggufphys", command, path, *arguments]), runs)

        return Answer(name=name, measure=measure, bar_s=bar_s)

    recurrent = "qwen3-next-80b-a3b"
    yield process(f"inspect, process: {recurrent}", 0.25, recurrent, 0, "inspect", "-c", "8k")
    for name, (shape, n_layer) in DEEP.items():
        for memory in ("24GiB", "24GiB,12GiB"):
            yield process(f"fit into {memory}, process: {name}", 1, shape, n_layer, "fit", "--memory", memory)
    yield process(f"fit into 24GiB,12GiB, process: {recurrent}", 1, recurrent, 0, "fit", "--memory", "24GiB,12GiB")
    for shape in shapes():
        yield Answer(
            name=f"fit over three devices, on processors: {shape}", measure=partial(_three, folder, shape, runs),
            bar_s=0.5,
        )  # fmt: skip


def _three(folder: Path, shape: str, runs: int) -> float:
    command = [sys.executable, "-m", "ggufphys", "fit", str(_shape(folder, shape)), "--memory", "6GiB,4GiB,3GiB"]
    return min(run_process(command).cpu_s for _ in range(1 + runs))


_SWEPT_S: Final = {"Vulkan0": 0.0026}  # more to do than for other devices: another order, operations that it lacks


def _sweeps(path: Callable[[], Path], name: str, runs: int) -> Iterator[Answer]:
    axes = parse_sweep(SWEEP)
    n_points = prod(len(axis.values) for axis in axes)
    for where, device in {"on the host": "", "on one device": "CUDA0", "on one Vulkan device": "Vulkan0"}.items():
        given = (Device(name=device, memory_bytes=24 << 30),) if device else ()

        def measure(params: Params = Params(devices=given)) -> float:  # noqa: B008
            return _of_file(path, lambda gguf: list(sweep(Predictor(gguf).predict, params, axes)), runs) / n_points

        yield Answer(name=f"sweep, a point: {name}, {where}", measure=measure, bar_s=_SWEPT_S.get(device, 0.002))
        yield Answer(
            name=f"sweep, another length: {name}, {where}", measure=partial(_lengths, path, given, runs), bar_s=0.001
        )


def _lengths(path: Callable[[], Path], devices: tuple[Device, ...], runs: int) -> float:
    """What a point takes that differs from others before it in the length of the context alone."""
    asked = iter([Params(n_ctx=8192 + 512 * i, devices=devices) for i in range((1 + runs) * LENGTHS)])
    with open_gguf(path()) as gguf:
        predict = Predictor(gguf).predict
        return _fastest(lambda: list(map(predict, islice(asked, LENGTHS))), runs, time.process_time) / LENGTHS


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
    run_program(main)
