"""Seconds of jobs to rates of a machine. No clock, no llama.cpp: what `bench.calibrate.jobs` lists goes in."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Final

from bench.calibrate.clock import Timing
from bench.calibrate.jobs import (
    BEGUN_ROWS,
    CACHED,
    CONVERTED_ROWS,
    LONG,
    PAGE,
    SHORT,
    Attention,
    Job,
    Nodes,
    Operation,
    Product,
    Step,
    Stream,
)
from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.speed.nodes import CACHE_LINE, GEMM_COLUMNS, REPACKED, Weight, converted
from ggufphys.speed.rates import AttentionRate, OperationRate, Processor, ProductRate

Seconds = Mapping[Job, float]
LEAST_S: Final = 1e-13  # an element's: nothing takes no time


def product_rates(
    seconds: Seconds,
    jobs: Iterable[Product],
    alone: Sequence[ProductRate] = (),
    scale: float = 1.0,
    begin_s: float = 0.0,
) -> tuple[ProductRate, ...]:
    """Rows and weights apart by two lengths, and what a weight takes more from main memory by several.

    Converting columns is told apart by a product of few rows. What a cache holds is measured on one thread: with
    several it takes `alone`'s time times `scale`, or as the kernel's own many columns say, which are measured on all
    threads: those of one core share it the better the more each waits.
    """
    lone = {rate.n_columns: rate for rate in alone}
    jobs = list(jobs)
    element_s = _converted(seconds, jobs, alone, scale)
    found = {
        (job.n_columns, job.n_in, "within" if job.shifted else job.place): (
            _beside_begin(seconds[job], job, element_s, begin_s) / job.n_out
        )
        for job in jobs
        if job.n_out > CONVERTED_ROWS and not _is_begun(job)
    }
    if alone:
        many = (found[n, n_in, place] / lone[n].row(n_in)[0] for n, n_in, place in found if place == "cache")
        scale = median([scale, *many])
    rates = []
    for n_columns in sorted({n_columns for n_columns, _, _ in found}):
        if (n_columns, SHORT, "cache") in found:
            short, long = CACHED
            short_s, long_s = found[n_columns, short, "cache"], found[n_columns, long, "cache"]
            row_s = min(max(0.0, short_s - short * (long_s - short_s) / (long - short)), 0.5 * long_s)
            weight_s = (long_s - row_s) / long
        else:
            row_s, weight_s = scale * lone[n_columns].row_s, scale * lone[n_columns].weight_s
        rate = ProductRate(
            n_columns=n_columns, row_s=row_s, weight_s=max(LEAST_S, weight_s),
            converted_s=element_s.get(n_columns, 0.0), begin_s=begin_s,
        )  # fmt: skip
        fetched = [
            (n_in, max(0.0, found[n_columns, n_in, "memory"] - rate.row(n_in)[0]) / n_in)
            for n_in in sorted(n_in for n, n_in, place in found if n == n_columns and place == "memory")
        ]
        rate = replace(rate, fetched=tuple(fetched))
        if within_s := found.get((n_columns, PAGE, "within")):
            slower = within_s / found[n_columns, PAGE, "memory"]
            rate = replace(rate, fetched_within=tuple(_fetched_within(rate, jobs[0].ggml_type, slower)))
        rates.append(rate)
    return tuple(rates)


def _fetched_within(rate: ProductRate, ggml_type: GGMLType, slower: float) -> Iterator[tuple[int, float]]:
    """What weights take more in rows that begin within a cache line, as one length tells it of all of whole lines.

    Where a row isn't whole lines, half of those that were measured, or more, began within one.
    """
    for n_in, seconds in rate.fetched:
        cached_s, far_s = rate.row(n_in)
        has_whole_lines = n_in // SIZES[ggml_type].block_size * SIZES[ggml_type].type_size % CACHE_LINE == 0
        yield n_in, max(0.0, slower * far_s - cached_s) / n_in if has_whole_lines else seconds


def _converted(
    seconds: Seconds, jobs: Sequence[Product], alone: Sequence[ProductRate], scale: float
) -> dict[int, float]:
    """Seconds an element of a column, by columns: what a product of few rows takes beside these on one thread."""
    if alone:
        return {rate.n_columns: scale * rate.converted_s for rate in alone}
    cached = {(j.n_columns, j.n_out > CONVERTED_ROWS): j for j in jobs if j.place == "cache" and j.n_in == PAGE}
    found = {}
    for (n_columns, is_long), few in cached.items():
        if not is_long and (many := cached.get((n_columns, True))):
            row_s = (seconds[many] - seconds[few]) / (many.n_out - few.n_out)
            found[n_columns] = max(0.0, seconds[few] - few.n_out * row_s) / (n_columns * PAGE)
    return found


def begin_seconds(
    seconds: Seconds, jobs_by_type: Mapping[str, Sequence[Product]], alone: Mapping[str, Sequence[ProductRate]],
    scale: float,
) -> float:  # fmt: skip
    """What types' products take until their weights come from main memory at their rate: in the median.

    A small one tells it from rows, which a large one with as long ones has more of.
    """
    found = []
    for name, jobs in jobs_by_type.items():
        small = next(filter(_is_begun, jobs), None)
        if small is None:
            continue
        large = next(j for j in jobs if replace(small, n_out=j.n_out) == j and j.n_out > small.n_out)
        element_s = _converted(seconds, jobs, alone.get(name, ()), scale)
        small_s, large_s = (_beside_columns(seconds[job], job, element_s) for job in (small, large))
        row_s = (large_s - small_s) / (large.n_out - small.n_out)
        found.append(max(0.0, small_s - small.n_out * row_s))
    return median(found or [0.0])


def rates_name(job: Product) -> str:
    """What a processor's rates of such products go by."""
    return job.ggml_type.name + REPACKED * job.repacked


def _is_begun(job: Product) -> bool:
    """Is it measured for the beginning of products from memory?"""
    return job.place == "memory" and (job.n_in, job.n_out) == (SHORT, BEGUN_ROWS)


def _beside_begin(seconds: float, job: Product, element_s: Mapping[int, float], begin_s: float) -> float:
    """A product's seconds without those of converting its columns, and without its beginning in main memory."""
    rows_s = _beside_columns(seconds, job, element_s)
    return max(rows_s - begin_s * (job.place == "memory"), 0.2 * rows_s)


def _beside_columns(seconds: float, job: Product, element_s: Mapping[int, float]) -> float:
    """A product's seconds without those of converting its columns."""
    singly, by_four = converted(Weight(job.ggml_type, job.repacked), job.n_in, job.n_columns, job.n_threads)
    converting_s = singly * element_s.get(1, 0.0) + by_four * element_s.get(GEMM_COLUMNS, 0.0)
    return max(seconds - converting_s, 0.2 * seconds)


def attention_rates(
    seconds: Seconds, jobs: Iterable[Attention], alone: Sequence[AttentionRate] = (), scale: float = 1.0
) -> tuple[AttentionRate, ...]:
    """A head, its cells, and their way from main memory apart: two lengths were measured, and one with large caches.

    What a cache holds is measured on one thread, as with products; what a masked cell takes, with the first heads.
    """
    groups: dict[tuple[int, int], list[Attention]] = {}
    for job in jobs:
        groups.setdefault((job.head_size, job.n_head_kv), []).append(job)
    lone = {(rate.head_size, rate.n_head_kv): rate for rate in alone}
    masked_cell_s = scale * alone[0].masked_cell_s if alone else 0.0
    rates = []
    for (head_size, n_head_kv), own in sorted(groups.items()):
        masked = next((job for job in own if job.masked), None)
        tiled = next(job for job in own if job.n_tokens > 1)
        *near, far = sorted((job for job in own if job not in (masked, tiled)), key=lambda j: j.n_cells)
        n_head = far.n_head
        if near:
            short, long = near
            cell_s = max(LEAST_S, (seconds[long] - seconds[short]) / (long.n_cells - short.n_cells) / n_head)
            head_s = max(0.0, seconds[short] / n_head - short.n_cells * cell_s)
        else:
            one = lone[head_size, n_head_kv]
            cell_s, head_s = scale * one.cell_s, scale * one.head_s
        if masked is not None:
            masked_cell_s = max(0.0, seconds[masked] / n_head - head_s) / masked.n_cells
        far_s, tiled_s = seconds[far], seconds[tiled] / (tiled.n_head * tiled.n_tokens * tiled.n_cells)
        missed = far_s - n_head * (head_s + far.n_cells * cell_s)
        rates.append(
            AttentionRate(
                head_size=head_size,
                n_head_kv=n_head_kv,
                head_s=head_s,
                cell_s=cell_s,
                far_cell_s=max(0.0, missed) / (n_head_kv * far.n_cells),
                tiled_cell_s=tiled_s,
                masked_cell_s=masked_cell_s,
            )
        )
    return tuple(rates)


def processor(
    seconds: Seconds,
    n_threads: int,
    gauge_s: float,
    step_nodes: Callable[[Processor, int], tuple[float, int]],
    alone: Processor | None = None,
) -> Processor:
    """The host with so many threads.

    `gauge_s` is what the gauge took on them. `step_nodes` gives for a processor what the nodes of a step of the tiny
    model take by themselves, and how many nodes its graph has. `alone` is the host with one thread: what is short is
    measured there, where no barrier is in its way. Threads share it as they share the gauge's product, which is less
    than evenly where two of them are one core's; one row of an operation stays one thread's.
    """
    own = [job for job in seconds if job.n_threads == n_threads]
    node_s = next((seconds[job] for job in own if isinstance(job, Nodes)), 0.0)
    without = {job: max(seconds[job] - _beside(job, node_s), 0.2 * seconds[job]) for job in own}
    scale = gauge_s / alone.gauge_s if alone is not None else 1.0
    products: dict[str, list[Product]] = {}
    attention: dict[str, list[Attention]] = {}
    for job in own:
        if isinstance(job, Product):
            products.setdefault(rates_name(job), []).append(job)
        elif isinstance(job, Attention):
            attention.setdefault(job.type_kv.name, []).append(job)
    streams = {
        by_four: sorted(
            (j.nbytes, j.nbytes / j.n_matrices / seconds[j])
            for j in own
            if isinstance(j, Stream) and j.by_four == by_four
        )
        for by_four in (False, True)
    }
    lone = alone.products if alone else {}
    rates: dict[str, tuple[ProductRate, ...]] = {}
    for repacked in (False, True):
        alike = {name: jobs for name, jobs in products.items() if jobs[0].repacked == repacked}
        begin_s = begin_seconds(without, alike, lone, scale)
        rates |= {
            name: product_rates(without, jobs, lone.get(name, ()), scale, begin_s) for name, jobs in alike.items()
        }
    operations = _operations(without, own)
    if alone is not None:
        operations = {name: replace(rate, row_s=alone.operations[name].row_s) for name, rate in operations.items()}
    host = Processor(
        name="CPU",
        n_threads=n_threads,
        streams=falling(streams[False]),
        streams_by_four=falling(streams[True]),
        flops_per_s=median(2 * r[-1].n_columns * LONG / r[-1].row(LONG)[0] for r in rates.values()),
        node_s=node_s,
        products=rates,
        attention={
            name: attention_rates(without, jobs, alone.attention[name] if alone else (), scale)
            for name, jobs in attention.items()
        },
        operations=operations,
        gauge_s=gauge_s,
    )
    return _with_steps(host, seconds, own, step_nodes)


def _beside(job: Job, node_s: float) -> float:
    """What a node takes beside its work, as `ggufphys.speed.nodes` counts it."""
    return node_s * (2 if isinstance(job, Product | Attention) else 1) * (not isinstance(job, Nodes | Step | Stream))


def believed(timings: Mapping[Job, Timing]) -> dict[Job, float]:
    """Seconds of each job; of products and attention on several threads without what others cost them.

    Threads wait for each other, so that one whose core others use makes all of them slower than one would be, by any
    amount. They may be slower undisturbed, too: a plain kernel gives them 16 rows at a time where there are two columns
    or more (ggml-cpu.c, ggml_compute_forward_mul_mat, chunk_size), and where these are short, what a core fetches ahead
    is another's to read. So what is slower than on one thread counts as far as its fastest undisturbed repetition is.
    """
    seconds = {job: timing.seconds for job, timing in timings.items()}
    for job, timing in timings.items():
        one = timings.get(replace(job, n_threads=1))
        if isinstance(job, Product | Attention) and one is not None and timing.seconds > one.seconds:
            seconds[job] = max(one.seconds, timing.least_s)
    return seconds


def slower_with_threads(timings: Mapping[Job, Timing]) -> float:
    """The share of products that others made slower on several threads than on one: 0 on a machine to oneself."""
    slower = [
        timing.seconds > one.seconds >= timing.least_s
        for job, timing in timings.items()
        if isinstance(job, Product) and (one := timings.get(replace(job, n_threads=1))) and one is not timing
    ]
    return sum(slower) / len(slower) if slower else 0.0


def falling(streams: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """The same where fewer bytes never come more slowly than more of them: what was slower was disturbed."""
    most, found = 0.0, []
    for nbytes, rate in reversed(streams):
        most = max(most, rate)
        found.append((nbytes, most))
    return tuple(reversed(found))


def _operations(seconds: Seconds, jobs: Iterable[Job]) -> dict[str, OperationRate]:
    found: dict[str, dict[bool, float]] = {}
    for job in jobs:
        if isinstance(job, Operation):
            each = max(LEAST_S, seconds[job] / (job.n_row * job.n_rows))
            found.setdefault(job.op, {})[job.n_rows > 1] = each
    return {op: OperationRate(row_s=rates[False], rows_s=rates[True]) for op, rates in found.items()}


def _with_steps(
    host: Processor, seconds: Seconds, jobs: Iterable[Job], step_nodes: Callable[[Processor, int], tuple[float, int]]
) -> Processor:
    """What a batch takes beside its nodes: the rest of tiny models' steps, on a line over the number of nodes."""
    rests = []
    for job in jobs:
        if isinstance(job, Step):
            nodes_s, n_nodes = step_nodes(host, job.n_layers)
            rests.append((n_nodes, max(0.0, seconds[job] - nodes_s)))
    if len(rests) < 2:
        return host
    (n0, rest0), (n1, rest1) = sorted(rests)
    slope = max(0.0, (rest1 - rest0) / (n1 - n0))
    return replace(host, step_s=max(0.0, rest0 - n0 * slope), step_node_s=slope)
