"""Seconds of jobs to rates of a machine. No clock, no llama.cpp: what `bench.calibrate.jobs` lists goes in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Final

from bench.calibrate.jobs import (
    CELLS,
    COLUMNS,
    FAR_CELLS,
    HEAD_SIZES,
    MANY_COLUMNS,
    N_IN,
    TWO_LENGTHS,
    Attention,
    Job,
    Nodes,
    Operation,
    Product,
    Step,
)
from ggufphys.speed.nodes import REPACKED
from ggufphys.speed.rates import AttentionRate, OperationRate, Processor, ProductRate

Seconds = Mapping[Job, float]
LEAST_S: Final = 1e-13  # an element's: nothing takes no time


def product_rates(seconds: Seconds, jobs: Iterable[Product]) -> tuple[ProductRate, ...]:
    """Rows and weights apart: two lengths of rows were measured for one column and for many, lines lie between.

    `weight_s` is with weights from main memory; the difference to a core's cache, measured for one column, is shared
    by columns that use a weight together.
    """
    found: dict[tuple[int, int, bool], float] = {}
    for job in jobs:
        found[job.n_columns, job.n_in, job.is_cached] = seconds[job] / job.n_out
    short, long = N_IN
    saved = max(0.0, found[1, long, False] - found[1, long, True]) / long
    rows = {}
    for n_columns in TWO_LENGTHS:  # the short rows are a cache's, the long ones as if they were
        short_s = found[n_columns, short, n_columns == 1]
        long_s = found[n_columns, long, False] - long * saved * (n_columns < MANY_COLUMNS)
        rows[n_columns] = max(0.0, short_s - short * (long_s - short_s) / (long - short))
    rates = []
    for n_columns in COLUMNS:
        row_s = min(_between(rows, n_columns), 0.5 * found[n_columns, long, False])
        weight_s = (found[n_columns, long, False] - row_s) / long
        rates.append(
            ProductRate(
                n_columns=n_columns,
                row_s=row_s,
                weight_s=max(LEAST_S, weight_s),
                cached_weight_s=max(LEAST_S, weight_s / 4, weight_s - saved * (n_columns < MANY_COLUMNS)),
            )
        )
    return tuple(rates)


def _between(known: Mapping[int, float], at: int) -> float:
    """On straight lines between what is known."""
    points = sorted(known)
    if at <= points[0]:
        return known[points[0]]
    for a, b in pairwise(points):
        if a <= at <= b:
            return known[a] + (at - a) / (b - a) * (known[b] - known[a])
    return known[points[-1]]


def attention_rates(seconds: Seconds, jobs: Iterable[Attention]) -> tuple[AttentionRate, ...]:
    """A head, its cells, and their way from main memory apart: two lengths were measured, and one with large caches."""
    found = {(job.head_size, job.n_cells, job.n_tokens > 1): (seconds[job], job) for job in jobs}
    short, long = CELLS
    rates = []
    for head_size in HEAD_SIZES:
        (short_s, job), (long_s, _) = found[head_size, short, False], found[head_size, long, False]
        cell_s = max(LEAST_S, (long_s - short_s) / (long - short) / job.n_head)
        head_s = max(0.0, short_s / job.n_head - short * cell_s)
        far_s, _ = found[head_size, FAR_CELLS, False]
        missed = far_s - job.n_head * (head_s + FAR_CELLS * cell_s)
        (tiled_s, tiled), *_ = (v for (size, _, is_tiled), v in found.items() if is_tiled and size == head_size)
        rates.append(
            AttentionRate(
                head_size=head_size,
                head_s=head_s,
                cell_s=cell_s,
                far_cell_s=max(0.0, missed) / (job.n_head_kv * FAR_CELLS),
                tiled_cell_s=tiled_s / (tiled.n_head * tiled.n_tokens * tiled.n_cells),
            )
        )
    return tuple(rates)


def processor(
    seconds: Seconds,
    n_threads: int,
    step_nodes: Callable[[Processor, int], tuple[float, int]],
    alone: Processor | None = None,
) -> Processor:
    """The host with so many threads.

    `step_nodes` gives for a processor what the nodes of a step of the tiny model take by themselves, and how many
    nodes its graph has. `alone` is the host with one thread: what is short is measured there, where no barrier is in
    its way, and shared by the threads; one row of an operation stays one thread's.
    """
    own = [job for job in seconds if job.n_threads == n_threads]
    node_s = next((seconds[job] for job in own if isinstance(job, Nodes)), 0.0)
    products: dict[str, list[Product]] = {}
    attention: dict[str, list[Attention]] = {}
    for job in own:
        if isinstance(job, Product) and not job.is_stream:
            products.setdefault(job.ggml_type.name + REPACKED * job.repacked, []).append(job)
        elif isinstance(job, Attention):
            attention.setdefault(job.type_kv.name, []).append(job)
    streams = sorted(
        (job.nbytes, job.nbytes / job.n_matrices / seconds[job])
        for job in own
        if isinstance(job, Product) and job.is_stream
    )
    without = {job: max(s - _beside(job, node_s), 0.2 * s) for job, s in seconds.items() if job.n_threads == n_threads}
    rates = {name: product_rates(without, jobs) for name, jobs in products.items()}
    host = Processor(
        name="CPU",
        n_threads=n_threads,
        streams=falling(streams),
        flops_per_s=median(2 * r[-1].n_columns / (r[-1].weight_s + r[-1].row_s / N_IN[-1]) for r in rates.values()),
        node_s=node_s,
        products=rates,
        attention={name: attention_rates(without, jobs) for name, jobs in attention.items()},
        operations=_operations(without, own),
    )
    if alone is not None:
        host = _shared(host, alone)
    return _with_steps(host, seconds, own, step_nodes)


def _shared(host: Processor, alone: Processor) -> Processor:
    """The same with what is short as one thread does it, divided by the threads."""
    n = host.n_threads

    def product(rate: ProductRate, one: ProductRate) -> ProductRate:
        row_s = min(one.row_s / n, 0.5 * (rate.row_s + N_IN[-1] * rate.weight_s))
        weight_s = max(LEAST_S, rate.weight_s + (rate.row_s - row_s) / N_IN[-1])
        cached_s = weight_s if rate.n_columns >= MANY_COLUMNS else max(one.cached_weight_s / n, LEAST_S)
        return replace(rate, row_s=row_s, weight_s=weight_s, cached_weight_s=min(weight_s, cached_s))

    def attention(rate: AttentionRate, one: AttentionRate) -> AttentionRate:
        far_s = rate.far_cell_s + (rate.cell_s - one.cell_s / n) * 2  # of two heads that share a head of the cache
        return replace(rate, head_s=one.head_s / n, cell_s=one.cell_s / n, far_cell_s=max(0.0, far_s))

    return replace(
        host,
        products={name: tuple(map(product, rates, alone.products[name])) for name, rates in host.products.items()},
        attention={name: tuple(map(attention, rates, alone.attention[name])) for name, rates in host.attention.items()},
        operations={name: replace(rate, row_s=alone.operations[name].row_s) for name, rate in host.operations.items()},
    )


def _beside(job: Job, node_s: float) -> float:
    """What a node takes beside its work, as `ggufphys.speed.nodes` counts it."""
    return node_s * (2 if isinstance(job, Product | Attention) else 1) * (not isinstance(job, Nodes | Step))


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
