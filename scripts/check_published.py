"""How far off is speed on machines that nobody has here? Each published run of llama.cpp beside its prediction.

usage: python -m scripts.check_published [--derive]

--derive finds `ggufphys/speed/classes.txt` again: of each class the shares with the least sum of |ln(measured /
predicted)| over a grid; and how far off each machine is when its own runs are left out, from which the bands are.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from bench.running.program import run_program
from ggufphys import GGUFFile, Params, open_gguf
from ggufphys.graph.devices.runs import Run, Runs
from ggufphys.params import Device
from ggufphys.report.inspection import table
from ggufphys.speed.predict import Figure, Speeds
from ggufphys.speed.published import MachineClass, data_sheet, machine_classes, published_machine
from ggufphys.synth.catalogue import shape_named
from ggufphys.synth.plan import plan_file

RUNS: Final = Path(__file__).parents[1] / "tests" / "data" / "speed" / "published_runs.txt"
BANDWIDTHS: Final = [0.05 * n for n in range(7, 20)]
FLOPS: Final = [0.05 * n for n in range(4, 29)]
NODES_US: Final = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRun:
    """A row of the file: `n` tokens read (pp) or generated (tg)."""

    machine: str
    shape: str
    file_type: str
    test: str
    n: int
    tok_per_s: float
    source: str


def published_runs() -> Sequence[PublishedRun]:
    """All rows of the table of published runs."""
    found = []
    for line in RUNS.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            machine, model, test, rate, source = (cell.strip() for cell in line.split("|"))
            shape, file_type = model.split()
            kind, n = test.split()
            found.append(
                PublishedRun(
                    machine=machine,
                    shape=shape,
                    file_type=file_type,
                    test=kind,
                    n=int(n),
                    tok_per_s=float(rate),
                    source=source,
                )
            )
    return found


class Predicted:
    """The runs' models, and what each run is predicted to take with some classes of machines."""

    def __init__(self, runs: Sequence[PublishedRun], folder: Path) -> None:
        self.ggufs: dict[tuple[str, str], GGUFFile] = {}
        self._runs: dict[tuple[str, str, str], Run] = {}
        self._seconds: dict[tuple[PublishedRun, MachineClass], Figure] = {}
        for shape, file_type in sorted({(run.shape, run.file_type) for run in runs}):
            path = folder / f"{shape}-{file_type}.gguf"
            plan = plan_file(shape_named(shape), file_type)
            with path.open("wb") as file:
                file.write(plan.header)
                file.truncate(plan.file_bytes)
            with open_gguf(path) as gguf:
                self.ggufs[shape, file_type] = gguf

    def seconds(self, run: PublishedRun, reached: MachineClass) -> Figure:
        """Seconds for a token if machines of its class reach so much."""
        if (run, reached) not in self._seconds:
            machine = data_sheet(published_machine(run.machine), {**machine_classes(), reached.name: reached})
            speeds = Speeds(self._run(run), machine)
            phase = speeds.decode(1, run.n // 2) if run.test == "tg" else speeds.prefill(run.n)
            self._seconds[run, reached] = phase.tok_per_s.inverse
        return self._seconds[run, reached]

    def ratio(self, run: PublishedRun, reached: MachineClass) -> float:
        """Measured over predicted seconds."""
        return 1 / (run.tok_per_s * self.seconds(run, reached).value)

    def _run(self, run: PublishedRun) -> Run:
        published = published_machine(run.machine)
        key = (run.shape, run.file_type, published.device)
        if key not in self._runs:
            devices = (Device(name=published.device, memory_bytes=1 << 40),) if published.has_gpu else ()
            params = Params(n_ctx=8192, devices=devices, flash_attn="off", use_extra_bufts=False)
            self._runs[key] = Runs(self.ggufs[run.shape, run.file_type]).run(params)
        return self._runs[key]

    def error(self, runs: Sequence[PublishedRun], reached: MachineClass) -> float:
        """The sum of |ln(measured / predicted)|."""
        return sum(abs(math.log(self.ratio(run, reached))) for run in runs)


def derived(predicted: Predicted, runs: Sequence[PublishedRun], start: MachineClass) -> MachineClass:
    """The shares with the least error: bandwidth and nodes by what generates, then operations by what reads."""

    def best(candidates: Iterator[MachineClass], test: str) -> MachineClass:
        some = [run for run in runs if run.test == test]
        return min(candidates, key=lambda c: predicted.error(some, c))

    found = best((replace(start, bandwidth_share=b, node_s=n * 1e-6) for b, n in product(BANDWIDTHS, NODES_US)), "tg")
    return best((replace(found, flops_share=f) for f in FLOPS), "pp")


def main(argv: Sequence[str] | None = None) -> int:
    """Print every run beside its prediction; exit code 1 if fewer than nine in ten lie within their range."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--derive", action="store_true", help="find the shares of classes.txt again")
    args = parser.parse_args(argv)
    runs = published_runs()
    with tempfile.TemporaryDirectory() as folder:
        predicted = Predicted(runs, Path(folder))
        if args.derive:
            _derive(predicted, runs)
            return 0
        rows, errors, within = [], [], 0
        for run in runs:
            figure = predicted.seconds(run, machine_classes()[published_machine(run.machine).class_name]).inverse
            value = figure.value
            within += figure.low <= run.tok_per_s <= figure.high
            errors.append(abs(value / run.tok_per_s - 1))
            rows.append(
                (run.machine, f"{run.shape} {run.file_type}", f"{run.test} {run.n}", f"{run.tok_per_s:.4g}",
                 f"{value:.4g}", f"{value / run.tok_per_s - 1:+.0%}", f"{figure.low:.4g} to {figure.high:.4g}")
            )  # fmt: skip
    print(
        *table(("machine", "model", "test", "measured", "predicted", "error", "range"), rows, right=(3, 4, 5)), sep="\n"
    )
    print(f"{within} of {len(runs)} within the range; error: median {median(errors):.0%}, worst {max(errors):.0%}")
    return 0 if within >= 0.9 * len(runs) else 1


def _derive(predicted: Predicted, runs: Sequence[PublishedRun]) -> None:
    """The band is that of runs of machines that were left out: what a machine without published runs has to expect."""
    for name, start in machine_classes().items():
        mine = [run for run in runs if published_machine(run.machine).class_name == name]
        found = derived(predicted, mine, start)
        left_out = []
        for machine in sorted({run.machine for run in mine}):
            others = derived(predicted, [run for run in mine if run.machine != machine], start)
            left_out += [(predicted.ratio(run, others), run) for run in mine if run.machine == machine]
        twentieths = quantiles([ratio for ratio, _ in left_out], n=20, method="inclusive")
        n_machines = len({run.machine for run in mine})
        print(
            f"{name} | {found.bandwidth_share:.2f} | {found.flops_share:.2f} | {1e6 * found.node_s:.1f} | "
            f"{twentieths[0]:.2f} | {twentieths[-1]:.2f}   # {len(mine)} runs of {n_machines} machines"
        )
        for ratio, run in left_out:
            print(f"    without {run.machine}: {run.file_type} {run.test} {run.n} {ratio - 1:+.0%}")


if __name__ == "__main__":
    run_program(main)
