"""Where does a served token's time go? Each step of the engine's loop, and each thread's processor time, by HTTP load.

`python -m bench.serve_profile MODEL [--against LLAMA-SERVER] [-c 1,8,32] [--rounds 1] [--parts]`

Load as in `bench.serve_compare`. A step's time is divided into llama_decode and what passes until the next one; a
thread's is what the kernel counts (/proc/PID/task/*/schedstat): `ran`, and `late` while it was ready and had no
processor. `--parts`: the loop without HTTP, in this process, by its thread's processor time in what it does between two
decodes, medians over steps, which needs no quiet machine. Linux.
"""

import argparse
import os
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.running.program import existing_file, existing_program, numbers, run_program
from bench.serve_compare.servers import Pair, Server
from bench.serve_compare.speed import Load, one_round
from ggufphys.machine.children import environment
from ggufphys.params import Params

LOAD: Final = Load(n_prompt=64, n_predict=64, n_requests=8)
N_CTX_SLOT: Final = 256
NS: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Seconds that a thread ran, and that it was ready and had to wait for a processor."""

    ran_s: float
    late_s: float


def threads(server: Server) -> dict[tuple[str, int], Ran]:
    """All threads of a server: of our worker, of what serves HTTP, the main one apart from the others."""
    found = {}
    for process in server.processes:
        role = "worker" if process.pid != server.pid else "http" if server.name == "ours" else "theirs"
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            try:
                ran, late, _ = (task / "schedstat").read_text(encoding="utf-8").split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            name = f"{role}, {'main' if int(task.name) == process.pid else 'others'}"
            found[name, int(task.name)] = Ran(ran_s=int(ran) * NS, late_s=int(late) * NS)
    return found


def steps(server: Server) -> tuple[float, float]:
    """Decodes so far, and seconds in them; theirs are not told."""
    if server.name == "theirs":
        return 0.0, 0.0
    with urllib.request.urlopen(f"{server.url}/metrics") as reply:
        lines = dict(line.rsplit(" ", 1) for line in reply.read().decode().splitlines() if not line.startswith("#"))
    return float(lines["llamacpp:n_decode_total"]), float(lines["ggufphys:decode_seconds_total"])


def level(server: Server, n_clients: int, seed: int) -> Iterator[str]:
    """One round, as lines."""
    ran_before, before = threads(server), steps(server)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    found = one_round(server, n_clients, LOAD, seed)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    ran, (n_steps, decode_s) = threads(server), (a - b for a, b in zip(steps(server), before, strict=True))
    n_tokens, ttft = found.n_requests * LOAD.n_predict, found.ttft_s
    first = f"TTFT p50 {ttft.p50:.3f} p95 {ttft.p95:.3f} s" if ttft else "no text"
    yield f"{server.name}, {n_clients} clients: {found.tok_per_s:.1f} tokens/s, {first}"
    if n_steps:
        yield (
            f"  {n_steps:.0f} steps of {wall_s / n_steps * 1e3:.2f} ms: {decode_s / n_steps * 1e3:.2f} in llama_decode,"
            f" {(wall_s - decode_s) / n_steps * 1e3:.2f} between"
        )
    ran_s, late_s = defaultdict[str, float](float), defaultdict[str, float](float)
    for (name, task), now in ran.items():
        then = ran_before.get((name, task), Ran(ran_s=0.0, late_s=0.0))
        ran_s[name] += now.ran_s - then.ran_s
        late_s[name] += now.late_s - then.late_s
    for name in sorted(ran_s):
        ran_ms, late_ms = (found_s[name] / n_tokens * 1e3 for found_s in (ran_s, late_s))
        yield f"  {name:16} {ran_ms:7.3f} ms a token ran, {late_ms:7.3f} late"
    yield f"  {'client':16} {cpu_s / n_tokens * 1e3:7.3f} ms a token ran"


class Parts:
    """A thread's processor time in functions that are wrapped; what one calls of another counts for that one alone."""

    def __init__(self) -> None:
        self.seconds = defaultdict[str, float](float)
        self._open: list[float] = []

    def wrap(self, owner: Any, name: str, what: str) -> None:
        """Time a method."""
        call: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            self._open.append(0.0)
            began = time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                took = time.thread_time() - began
                self.seconds[what] += took - self._open.pop()
                if self._open:
                    self._open[-1] += took

        setattr(owner, name, timed)


def parts(model: Path, n: int, n_threads: int) -> Iterator[str]:
    """The loop with `n` greedy answers, as lines."""
    from server.engine.frames import Step, Submit
    from server.engine.llama.engine import LlamaBackend, load_backend
    from server.engine.loop.loop import EngineLoop
    from server.engine.loop.threaded import TARGET_S
    from server.engine.request import GenerationRequest
    from server.engine.sampling import Sampling
    from server.engine.worker.pipe import Sender

    params = Params(n_ctx=n * N_CTX_SLOT, n_seq_max=n, n_threads=n_threads)
    backend, found = load_backend(model, params), Parts()
    assert isinstance(backend, LlamaBackend)
    with Path(os.devnull).open("wb") as nowhere:
        sender = Sender(nowhere)

        def deliver(step: Step) -> None:
            sender.send(step.plain() or step)

        loop = EngineLoop(backend, deliver, target_s=TARGET_S)
        greedy = Sampling(temperature=0, ignore_eos=True)
        for i in range(n):
            prompt = tuple(range(1000 + 64 * i, 1064 + 64 * i))
            loop.put(Submit(i, GenerationRequest(prompt=prompt, max_tokens=128, sampling=greedy)))
        while loop.counters.n_generated_tokens < 2 * n:
            loop.turn()
        found.wrap(backend._batch, "decode", "llama_decode, this thread's share")
        found.wrap(backend, "decode", "batch, looking whether to spin")
        found.wrap(loop.scheduler, "plan", "plan")
        found.wrap(loop._jobs, "hand_out", "handing out")
        found.wrap(backend._rows, "best", "the likeliest token")
        found.wrap(loop, "_send", "sending")
        found.wrap(loop, "turn", "the rest")
        took = defaultdict[str, list[float]](list)
        while len(loop._jobs) == n:
            found.seconds.clear()
            loop.turn()
            for what, seconds in found.seconds.items():
                took[what].append(seconds)
    backend.close()
    yield f"the loop, {n} answers, {len(took['plan'])} steps, ms a step of its thread's processor time:"
    for what, each in sorted(took.items(), key=lambda item: -median(item[1])):
        yield f"  {what:36} {median(each) * 1e3:8.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Profile, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve_profile", description=__doc__)
    add = parser.add_argument
    add("model", type=existing_file, metavar="MODEL")
    add("--against", type=existing_program, metavar="BINARY", help="llama-server, for its threads' time beside ours")
    add("-c", "--clients", type=numbers, default=[1, 8, 32], metavar="N,N", help="at once (default 1,8,32)")
    add("--rounds", type=int, default=1)
    add("--parts", action="store_true", help="the loop alone, by what it does")
    add("--threads", type=int, default=os.cpu_count() or 1)
    add("--port", type=int, default=18090)
    args = parser.parse_args(argv)
    if args.parts:
        os.environ.update(environment(spinning=True))
        for n in args.clients:
            for line in parts(args.model, n, args.threads):
                print(line)
        return 0
    pair = Pair(model=args.model, against=str(args.against or "http://none"), threads=args.threads, port=args.port)
    with pair.started(n_slots=max(args.clients), n_ctx_slot=N_CTX_SLOT) as servers:
        watched = [server for server in servers if server.pid]
        for server in watched:
            one_round(server, 1, LOAD, -1)
        for n in args.clients:
            for number in range(args.rounds):
                for server in watched:
                    for line in level(server, n, 1000 * n + number):
                        print(line, flush=True)
    return 0


if __name__ == "__main__":
    run_program(main)
