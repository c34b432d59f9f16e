"""The measuring process: `python -m bench.calibrate.child CONFIG_JSON`, one JSON object a line to stdout.

{"done": jobs, "of": jobs} while it measures, and {"machine": ...} at last. llama.cpp can end its process, so this is
one of its own; it has the environment in which threads wait as they do in the server.
"""

import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.calibrate import identity
from bench.calibrate.clock import VERY_BUSY, Sample, Timing, calm, how_closely, often_enough, sample, summed
from bench.calibrate.gauge import Gauge
from bench.calibrate.graphs import (
    AttentionGraphs,
    ProductGraphs,
    Runnable,
    nodes_graph,
    operation_graph,
    stream_graph,
)
from bench.calibrate.jobs import (
    LARGE,
    N_LAYERS,
    RARE_TYPES,
    TYPES,
    Attention,
    Job,
    Nodes,
    Operation,
    Product,
    Step,
    Stream,
    attentions,
    operations,
    products,
    sort_of,
    streams,
)  # fmt: skip
from bench.calibrate.library import repack_buffer_type
from bench.calibrate.rates import believed, processor, slower_with_threads
from bench.calibrate.tiny import step_nodes, step_runner, token_seconds
from bench.running.telling import emit, run_telling
from ggufphys.gguf import GGMLType
from ggufphys.graph.devices.backends.repack import REPACK_RULES
from ggufphys.machine import host
from ggufphys.speed.rates import Machine, Processor, Sort

FILE_BYTES: Final = 64 << 20
ROUNDS: Final = 4
ENOUGH_S: Final = 36.0  # after these the rounds behind the first end: a calibration takes a minute at most
RARE_S: Final = 10.0  # for types that few files have, behind all else: none where a slow machine's first round took it
BAND: Final = (0.8, 1.35)  # what seconds of models were less and more than predicted, most of them: docs/speed.md
MAX_BAND: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is asked for."""

    threads: tuple[int, ...]
    types: tuple[int, ...]
    rare: tuple[int, ...] = ()


def plan(config: Config) -> list[Job]:
    """All jobs but the rare types'; those of a type of weights stand together."""
    threads, large = config.threads, large_bytes()
    jobs: list[Job] = [Nodes(n_threads=n) for n in threads]
    jobs += [*attentions(threads, large=large), *operations(threads)]
    jobs += [Step(n_threads=n, n_layers=n_layers) for n in threads for n_layers in N_LAYERS]
    jobs += streams(threads, large)
    return jobs + plan_types(config.types, threads)


def plan_types(types: Iterable[int], threads: Sequence[int]) -> list[Job]:
    """The products of types of weights, repacked, too, where llama.cpp repacks them here."""
    features = host.cpu_features()
    repacks = {rule.ggml_type for rule in REPACK_RULES if rule.features <= features} if repack_buffer_type() else set()
    jobs: list[Job] = []
    for number in types:
        for repacked in (False, True) if GGMLType(number) in repacks else (False,):
            jobs += products(threads, GGMLType(number), repacked=repacked)
    return jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Seconds of a node of each job at one pace; the gauges' by threads; how closely each sort of job follows them."""

    timings: Mapping[Job, Timing]
    paces: Mapping[int, float]
    follows: Mapping[tuple[int, Sort], float]
    repacked_per_s: float


def large_bytes() -> int:
    """Of weights and of cells that no cache of this processor holds."""
    return max(LARGE, round(1.25 * (identity.last_cache_bytes() or 0)))


class Measuring:
    """Samples of jobs, more with every round."""

    def __init__(self, gauges: Mapping[int, Gauge], folder: Path, on_job: Callable[[], None]) -> None:
        self._gauges, self._folder, self._on_job = gauges, folder, on_job
        self._nbytes = large_bytes()
        self._often: dict[Job, int] = {}
        self.found: dict[Job, list[Sample]] = {}
        self.nodes: dict[Job, int] = {}
        self.repacking: list[float] = []
        """Bytes a second into repacked layouts."""

    def go_round(self, jobs: Sequence[Job], ends_at: float, *, is_first: bool) -> None:
        """Measure each once. A first round is gone to its end, the others until that time."""
        for _, group in groupby(jobs, key=_memory_of):
            if not is_first and time.monotonic() > ends_at:
                return
            alike = list(group)
            with self._graphs(alike) as graph:
                for job in alike:
                    if not is_first and time.monotonic() > ends_at:
                        break
                    with graph(job) as (run, self.nodes[job]):
                        if job in self._often:
                            run()  # its first one touches new memory
                        else:
                            self._often[job] = often_enough(run, job.n_threads)
                        look = self._gauges[job.n_threads].look
                        self.found.setdefault(job, []).append(sample(run, job.n_threads, self._often[job], look))
                    self._on_job()

    @contextmanager
    def _graphs(self, alike: Sequence[Job]) -> Iterator[Callable[[Any], AbstractContextManager[Runnable]]]:
        """What makes these jobs' graphs: weights and caches are made once for all of them."""
        match alike[0]:
            case Product(ggml_type=ggml_type, repacked=repacked):
                made = ProductGraphs(ggml_type, repacked=repacked, nbytes=self._nbytes, folder=self._folder)
                with closing(made) as products:
                    if repacked:
                        self.repacking.append(products.bytes_per_s)
                    yield products.graph
            case Attention(type_kv=type_kv):
                most = max(job.nbytes for job in alike if isinstance(job, Attention))
                with closing(AttentionGraphs(type_kv, nbytes=most)) as attention:
                    yield attention.graph
            case _:
                yield lambda job: runner(job, self._folder)


def _memory_of(job: Job) -> object:
    """What jobs have in common whose weights or caches are the same memory, seen in other shapes."""
    match job:
        case Product():
            return job.ggml_type, job.repacked
        case Attention():
            return job.type_kv
    return None


def measured(
    jobs: Sequence[Job], rare: Sequence[Job], gauges: Mapping[int, Gauge], folder: Path, on_job: Callable[[], None]
) -> Measured:
    """Measure them.

    All jobs are measured in turn, once a round and as many rounds as there is time for: a disturbance meets one
    repetition of a job. The rare types' come last, once each, as many as there is time for behind all others.
    """
    measuring = Measuring(gauges, folder, on_job)
    ends_at = time.monotonic() + ENOUGH_S
    for i in range(ROUNDS):
        measuring.go_round(jobs, ends_at, is_first=i == 0)
    for _, group in groupby(rare, key=_memory_of):
        if time.monotonic() < ends_at + RARE_S:
            measuring.go_round(list(group), ends_at=0.0, is_first=True)
    found = measuring.found
    paces = {n_threads: gauge.mean() for n_threads, gauge in gauges.items()}
    sorts: dict[tuple[int, Sort], list[Job]] = {}
    for job in found:
        sorts.setdefault((job.n_threads, sort_of(job)), []).append(job)
    timings, follows = {}, {}
    for (n_threads, sort), own in sorts.items():
        closely, follows[n_threads, sort] = how_closely(calm(found[job], n_threads) for job in own)
        for job in own:
            together = summed(found[job], n_threads, gauge_s=paces[n_threads], follows=closely)
            timings[job] = together.each_of(measuring.nodes[job])
    repacked_per_s = median(measuring.repacking or [0.0])
    return Measured(timings=timings, paces=paces, follows=follows, repacked_per_s=repacked_per_s)


def expected(n_done: int, elapsed_s: float, n_jobs: int, n_rare: int) -> int:
    """How many measurements there will be at this pace: the first round whole, the others while there is time."""
    in_time = round(n_done / elapsed_s * (ENOUGH_S + RARE_S))
    return max(n_done, min(max(n_jobs, in_time), ROUNDS * n_jobs + n_rare))


def runner(job: Stream | Operation | Nodes | Step, folder: Path) -> AbstractContextManager[Runnable]:
    """What runs a job that has its memory to itself."""
    match job:
        case Stream():
            return stream_graph(job)
        case Operation():
            return operation_graph(job)
        case Nodes():
            return nodes_graph(job)
    return step_runner(folder, job)


def read_rates(folder: Path) -> tuple[float, float]:
    """Bytes a second from the disk, and of mapping what the page cache has; 0 where it cannot be told."""
    path = folder / "bytes"
    path.write_bytes(os.urandom(1 << 20) * (FILE_BYTES >> 20))
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        disk = 0.0
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            started = time.perf_counter()
            while file.read(1 << 20):
                pass
            disk = FILE_BYTES / (time.perf_counter() - started)
        started = time.perf_counter()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            for at in range(0, FILE_BYTES, mmap.PAGESIZE):
                mapped[at]
        return disk, FILE_BYTES / (time.perf_counter() - started)


def calibrate(config: Config, folder: Path) -> dict[str, Any]:
    """Measure everything; the machine as JSON. Small models and a file to read are made in the folder."""
    started = time.perf_counter()
    jobs, rare = plan(config), plan_types(config.rare, config.threads)
    n_done = 0

    def on_job() -> None:
        nonlocal n_done
        n_done += 1
        emit(done=n_done, of=expected(n_done, time.perf_counter() - started, len(jobs), len(rare)))

    gauges = {n: Gauge(n) for n in config.threads}
    found = measured(jobs, rare, gauges, folder, on_job)
    for gauge in gauges.values():
        gauge.close()
    seconds = believed(found.timings)
    hosts: list[Processor] = []
    for n in config.threads:
        alone = hosts[0] if hosts else None
        cpu = processor(seconds, n, found.paces[n], lambda cpu, n_layer: step_nodes(folder, cpu, n_layer), alone)
        follows = {sort: closely for (threads, sort), closely in found.follows.items() if threads == n}
        hosts.append(replace(cpu, follows=follows))
    disk, cached = read_rates(folder)
    token_s = token_seconds(folder)
    several = [t.busy for job, t in found.timings.items() if job.n_threads > 1]  # processor time is not waiting
    busy, slower = median(several or [0.0]), slower_with_threads(found.timings)
    notes = []
    spread = median(t.spread_s / t.seconds for t in found.timings.values() if t.seconds)
    widening = min(MAX_BAND, 1 + spread + max(0.0, busy - 0.02) + slower)
    if busy > VERY_BUSY or slower > VERY_BUSY:
        notes.append(
            f"the machine was busy while it was calibrated: threads waited for a processor {busy:.0%} of their time, "
            f"and several took longer than one for {slower:.0%} of products; ranges are wider for it, calibrate again "
            "when it is quiet"
        )
    who = identity.identity(config.threads)
    machine = Machine(
        name=who["cpu"],
        basis="calibrated",
        source=f"measured {time.strftime('%Y-%m-%d %H:%M')} in {time.perf_counter() - started:.0f} s",
        processors=[replace(cpu, band=(BAND[0] / widening, BAND[1] * widening)) for cpu in hosts],
        disk_bytes_per_s=disk,
        cached_bytes_per_s=cached,
        repack_bytes_per_s=found.repacked_per_s,
        token_s=token_s,
        identity={**who, "busy": busy, "spread": spread, "slower_with_threads": slower},
        notes=notes,
    )
    return machine.to_json()


def main() -> int:
    """Calibrate as the configuration says."""
    asked = json.loads(sys.argv[1])
    types = asked.get("types") or TYPES
    rare = () if asked.get("types") else RARE_TYPES
    threads = tuple(sorted({1, *asked["threads"]}))  # what is short is measured with one
    config = Config(threads=threads, types=tuple(map(int, types)), rare=tuple(map(int, rare)))
    emit(machine=calibrate(config, Path(asked["folder"])))
    return 0


if __name__ == "__main__":
    run_telling(main)
