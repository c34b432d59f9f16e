"""How should llama.cpp's threads wait for each other: asleep, spinning, or spinning for a while?

`python -m bench.waiting [MODEL] [--spins -1,0,1000,... | --threads N | --busy K | --duty SHARE | --rounds R | --json]`,
by default on the embedded model. A decode step has hundreds of barriers, each some microseconds long when the other
threads run. Asleep, each costs a trip through the kernel; spinning without end, a thread burns the core that the one it
waits for needs. libgomp spins for GOMP_SPINCOUNT turns and then sleeps. Each setting decodes in a process of its own,
alone and beside K busy processes, in interleaved rounds; rates are medians over the rounds. In brackets, the share of
its time that the worst-off thread was ready to run and had no processor: what switching goes by. The load of the
machine is printed, since it moves these figures most: alone is alone only when it is near 0. `--real-time` (root,
Linux) decodes before all other processes, so that alone is what it would be on a quiet machine; others stand still for
seconds.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from bench.running.program import existing_file, run_program
from bench.running.telling import answer
from ggufphys.embedded import MODEL
from ggufphys.machine.children import environment, module_command
from ggufphys.machine.llama_env import SPINNING

ADAPTIVE: Final = -1  # as the server does it
CROWDED: Final = -2  # as the server does it on a busy machine: 1,000 turns, all the time
SPINS: Final = (ADAPTIVE, CROWDED, 0, 100, 1_000, 3_000, 10_000, 300_000, 30_000_000_000)
NAMES: Final = {
    ADAPTIVE: "switched by measurement",
    CROWDED: "as on a busy machine",
    0: "passive",
    300_000: "libgomp's default",
    30_000_000_000: "active",
}
N_STEPS: Final = 200
SETTLED: Final = N_STEPS // 4  # the first while, switching finds out where it is
TURN_S: Final = 0.04  # of a neighbour: it computes for its share of that, and sleeps
BUSY: Final = """
import sys, time
busy_s, idle_s = map(float, sys.argv[1:])
while True:
    end = time.perf_counter() + busy_s
    while time.perf_counter() < end: pass
    if idle_s: time.sleep(idle_s)
"""


def child(path: Path, n_threads: int, *, kind: str, real_time: bool) -> None:
    """Decode token by token and print the steps' seconds, and the worst thread's share without a processor."""
    from ggufphys.params import Params
    from server.engine.llama.batch import Batch
    from server.engine.llama.library import create_context, load_model
    from server.engine.llama.waiting import Waiting, thread_times, worst_share

    params = Params(n_ctx=512, n_batch=64, n_ubatch=64, n_threads=n_threads, n_outputs_max=1)
    steps: list[float] = []
    with load_model(path, params) as model, create_context(model, params) as context, Batch(context, 64) as batch:
        if real_time:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        batch.add(range(1, 33), seq_id=0, start=0, logits_of_last=True)
        batch.decode(context)
        waiting = Waiting()
        waiting.is_active = waiting.is_active and kind == "adaptive"
        if kind == "crowded":
            waiting.crowd()
        times = thread_times()
        for at in range(32, 32 + N_STEPS):
            if at == 32 + SETTLED:
                times = thread_times()
            batch.clear()
            batch.add((at,), seq_id=0, start=at, logits_of_last=True)
            started_at = time.perf_counter()
            batch.decode(context)
            waiting.after_step()
            steps.append(time.perf_counter() - started_at)
        share = worst_share(times, thread_times())
    sys.stdout.write(json.dumps({"steps": steps[SETTLED:], "share": share}))


def measure(path: Path, n_spins: int, n_threads: int, *, real_time: bool) -> tuple[float, float]:
    """Tokens a second with a setting, of the mean step since it is the long ones that spinning makes; and the share."""
    fixed = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(n_spins)}
    variables = {**environment(), **(SPINNING if n_spins < 0 else fixed)}
    kind = {ADAPTIVE: "adaptive", CROWDED: "crowded"}.get(n_spins, "fixed")
    command = module_command("bench.waiting", "--child", kind, str(path), "--threads", str(n_threads))
    command += ["--real-time"] if real_time else []
    found = answer(command, variables)
    return len(found["steps"]) / sum(found["steps"]), float(found["share"])


@contextmanager
def neighbours(n: int, duty: float) -> Iterator[None]:
    """Processes that are busy for so much of their time."""
    turn = [str(TURN_S * duty), str(TURN_S * (1 - duty))]
    processes = [subprocess.Popen([sys.executable, "-c", BUSY, *turn]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def share(text: str) -> float:
    """More than 0, at most 1. Raises ValueError, which argparse tells."""
    found = float(text)
    if not 0 < found <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a share of the time, more than 0 and at most 1")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each setting, print the table or JSON."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog="python -m bench.waiting", description=__doc__)
    parser.add_argument("model", nargs="?", type=existing_file, default=MODEL, metavar="MODEL", help="a GGUF file")
    parser.add_argument(
        "--spins", default=",".join(map(str, SPINS)), metavar="N,...",
        help="values of GOMP_SPINCOUNT; -1: switched as the server does, -2: as it does on a busy machine",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=n_cores, metavar="N", help="llama.cpp's threads (all cores)")
    parser.add_argument("--busy", type=int, default=n_cores, metavar="K", help="busy neighbours (one a core)")
    parser.add_argument("--duty", type=share, default=1.0, metavar="SHARE", help="of their time that they are busy (1)")
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="of each setting (3)")
    parser.add_argument("--real-time", action="store_true", help="before all other processes (needs root)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--child", choices=("adaptive", "crowded", "fixed"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        child(args.model, args.threads, kind=args.child, real_time=args.real_time)
        return 0
    settings = [int(text) for text in args.spins.split(",")]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    conditions = sorted({0, args.busy})
    runs: dict[tuple[int, int], list[tuple[float, float]]] = {(n, busy): [] for n in settings for busy in conditions}
    for _ in range(args.rounds):
        for busy in conditions:
            with neighbours(busy, args.duty):
                for spins in settings:
                    runs[spins, busy].append(measure(args.model, spins, args.threads, real_time=args.real_time))
    rows = [
        {
            "spins": spins,
            "busy": busy,
            "tok_per_s": median(rate for rate, _ in found),
            "rounds": [rate for rate, _ in found],
            "share": median(share for _, share in found),
        }
        for (spins, busy), found in runs.items()
    ]
    if args.json:
        document = {
            "schema_version": 2,
            "load": load,
            "duty": args.duty,
            "n_threads": args.threads,
            "n_cores": n_cores,
            "rows": rows,
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return 0
    sys.stdout.write(f"{args.threads} threads on {n_cores} cores, load {load:.1f} before; tokens/s\n")
    heads = ["alone" if not busy else f"beside {busy}" for busy in conditions]
    sys.stdout.write(f"{'GOMP_SPINCOUNT':>14}" + "".join(f"{head:>19}" for head in heads) + "\n")
    for spins in settings:
        cells = "".join(f"{r['tok_per_s']:12.1f} ({r['share']:4.0%})" for r in rows if r["spins"] == spins)
        sys.stdout.write(f"{spins:>14}{cells}  {NAMES.get(spins, '')}\n")
    return 0


if __name__ == "__main__":
    run_program(main)
