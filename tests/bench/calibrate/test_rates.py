"""Rates from seconds: what goes in comes out again, without llama.cpp and without a clock."""

from dataclasses import replace
from math import isclose

import pytest

from bench.calibrate.clock import Sample, Timing, how_closely, summed
from bench.calibrate.jobs import (
    CACHE_TYPES,
    FAR_CELLS,
    LARGE,
    LONG,
    LONGER,
    MANY_COLUMNS,
    MATRIX,
    MIDDLE,
    N_LAYERS,
    PAGE,
    SHORT,
    Attention,
    Job,
    Nodes,
    Operation,
    Product,
    Step,
    Stream,
    attentions,
    lengths,
    operations,
    products,
    streams,
)
from bench.calibrate.rates import believed, falling, processor, slower_with_threads
from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.speed.nodes import BY_FOUR, CACHE_LINE, Weight, converted
from ggufphys.speed.rates import Processor

NODE_S = 1e-6
ROW_S, WEIGHT_S = 2e-8, 6e-11
BEGUN_S, FETCHED_S = 2e-9, 1e-11  # of a row from main memory, and of each weight of it
CONVERTED_S = 5e-10
SHIFTED = 1.3  # times as long: a row that begins within a cache line
BEGIN_S = 4e-6  # of a product from main memory, and a thread
HEAD_S, CELL_S, FAR_S, TILED_S, MASKED_S = 3e-7, 4e-9, 2e-9, 5e-10, 3e-10
GAUGE_S = {1: 1e-4, 2: 6e-5}  # two threads take 0.6 of the time


def fake(job: Job) -> float:
    """Seconds of a job on a machine with these rates."""
    share = GAUGE_S[job.n_threads] / GAUGE_S[1]
    if isinstance(job, Stream):
        return job.nbytes / job.n_matrices / (2e9 if job.by_four else 5e9)
    if isinstance(job, Product):
        begin_s = BEGIN_S * job.n_threads if job.place == "memory" else 0.0
        fetched_s = BEGUN_S + job.n_in * FETCHED_S if job.place == "memory" else 0.0  # once, for all columns
        n_converted = sum(converted(Weight(job.ggml_type, job.repacked), job.n_in, job.n_columns, job.n_threads))
        row_s = (share * job.n_columns * (ROW_S + job.n_in * WEIGHT_S) + fetched_s) * (SHIFTED if job.shifted else 1)
        return 2 * NODE_S + begin_s + share * n_converted * CONVERTED_S + job.n_out * row_s
    if isinstance(job, Attention):
        cell_s = TILED_S if job.n_tokens > 1 else MASKED_S if job.masked else CELL_S
        head_s = HEAD_S if job.n_tokens == 1 else 0.0
        far_s = FAR_S * job.n_head_kv * job.n_cells * (job.n_cells == FAR_CELLS and not job.masked)
        return 2 * NODE_S + far_s + share * job.n_head * job.n_tokens * (head_s + job.n_cells * cell_s)
    if isinstance(job, Operation):
        return NODE_S + job.n_row * job.n_rows * (1e-9 if job.n_rows == 1 else 2e-9)
    if isinstance(job, Nodes):
        return NODE_S
    return 1e-4 + 100 * job.n_layers * 1e-7


def jobs_of(threads: tuple[int, ...]) -> list[Job]:
    """All jobs with weights of one type."""
    jobs: list[Job] = [*(Nodes(n_threads=n) for n in threads), *streams(threads)]
    jobs += [*attentions(threads), *operations(threads), *products(threads, GGMLType.Q4_K, repacked=False)]
    jobs += [Step(n_threads=n, n_layers=n_layers) for n in threads for n_layers in N_LAYERS]
    return jobs


def made(n_threads: int, alone: Processor | None = None, many: float = 1.0) -> Processor:
    """The processor that is made of a known machine's seconds.

    Several threads' products with many columns take so `many` times as long.
    """
    seconds = {job: fake(job) for job in jobs_of((1, 2))}
    for job in seconds:
        if isinstance(job, Product) and job.n_threads > 1 and job.n_columns >= MANY_COLUMNS:
            seconds[job] *= many
    return processor(seconds, n_threads, GAUGE_S[n_threads], lambda host, n_layer: (0.0, 100 * n_layer), alone)


def test_rates_are_those_of_the_machine() -> None:
    """A processor made of the seconds of a known machine has that machine's rates."""
    cpu = made(1)

    assert cpu.node_s == NODE_S
    assert isclose(cpu.bytes_per_s, 5e9)
    assert isclose(cpu.streams_by_four[-1][1], 2e9)
    for rate in cpu.products["Q4_K"]:
        assert isclose(rate.row_s, rate.n_columns * ROW_S, rel_tol=1e-6)
        assert isclose(rate.weight_s, rate.n_columns * WEIGHT_S, rel_tol=1e-6)
        for n_in in (1000, 3000, LONG, LONGER[1]) if rate.fetched else ():
            assert isclose(rate.row(n_in)[1] - rate.row(n_in)[0], BEGUN_S + n_in * FETCHED_S, rel_tol=1e-6)
    assert [n_in for n_in, _ in cpu.products["Q4_K"][0].fetched] == [SHORT, PAGE, LONG, *LONGER]
    assert [n_in for n_in, _ in cpu.products["Q4_K"][1].fetched] == [SHORT, MIDDLE, PAGE, LONG, LONGER[1]]
    assert isclose(cpu.products["Q4_K"][0].converted_s, CONVERTED_S, rel_tol=1e-6)
    for attention in cpu.attention["F16"]:
        assert isclose(attention.head_s, HEAD_S, rel_tol=1e-6)
        assert isclose(attention.cell_s, CELL_S, rel_tol=1e-6)
        assert isclose(attention.far_cell_s, FAR_S, rel_tol=1e-6)
        assert isclose(attention.tiled_cell_s, TILED_S, rel_tol=1e-6)
        assert isclose(attention.masked_cell_s, MASKED_S, rel_tol=1e-6)
    assert isclose(cpu.operations["ADD"].row_s, 1e-9)
    assert isclose(cpu.operations["ADD"].rows_s, 2e-9)
    assert isclose(cpu.step_s, 1e-4, rel_tol=1e-6)
    assert isclose(cpu.step_node_s, 1e-7, rel_tol=1e-6)


def test_rows_that_begin_within_a_cache_line() -> None:
    """Of types of which kernels take four rows at once: one length says how many times as long they take in all."""
    jobs: list[Job] = [Nodes(n_threads=1), *streams((1,)), *attentions((1,)), *operations((1,))]
    jobs += products((1,), GGMLType.Q8_0, repacked=False)
    seconds = {job: fake(job) for job in jobs}
    rates = processor(seconds, 1, GAUGE_S[1], lambda host, n_layer: (0.0, n_layer)).products["Q8_0"]

    for rate in rates:
        for n_in, times in ((PAGE, SHIFTED), (LONG, SHIFTED), (448, 1.0)) if rate.n_columns < MANY_COLUMNS else ():
            assert isclose(rate.row(n_in, within=True)[1], times * rate.row(n_in)[1], rel_tol=0.01)


@pytest.mark.parametrize("name", sorted(BY_FOUR))
def test_a_matrix_that_begins_within_a_cache_line_has_whole_blocks(name: str) -> None:
    """What is read there are weights, in the memory of the matrix that it is a part of."""
    job = next(job for job in products((1,), GGMLType[name], repacked=False) if job.shifted)
    size = SIZES[job.ggml_type]

    assert job.shift % CACHE_LINE == CACHE_LINE // 2
    assert job.shift % size.type_size == 0
    assert (
        job.shift + job.n_out * job.n_in // size.block_size * size.type_size
        <= MATRIX // size.block_size * size.type_size
    )
    assert job.n_in // size.block_size * size.type_size % CACHE_LINE == 0


def test_threads_share_what_is_short_as_they_share_the_gauge() -> None:
    """What was measured in a cache on one thread takes two threads the gauge's share of it; memory keeps its rate."""
    one, two = made(1), made(2, made(1))

    for rate, lone in zip(two.products["Q4_K"], one.products["Q4_K"], strict=True):
        assert isclose(rate.row(LONG)[0], 0.6 * lone.row(LONG)[0], rel_tol=1e-6)
        for n_in, fetched_s in lone.fetched:
            assert isclose(rate.row(n_in)[1] - rate.row(n_in)[0], n_in * fetched_s, rel_tol=1e-6)
        assert isclose(rate.begin_s, 2 * BEGIN_S, rel_tol=1e-6)
        assert isclose(lone.begin_s, BEGIN_S, rel_tol=1e-6)
    for attention in two.attention["F16"]:
        assert isclose(attention.cell_s, 0.6 * CELL_S, rel_tol=1e-6)
        assert isclose(attention.masked_cell_s, 0.6 * MASKED_S, rel_tol=1e-6)
        assert isclose(attention.far_cell_s, FAR_S, rel_tol=1e-6)


def test_a_kernel_that_threads_share_better_than_the_gauge() -> None:
    """What its many columns say, which are measured on all threads, is said of its few, which are not."""
    one, two = made(1), made(2, made(1), many=0.75)

    for rate, lone in zip(two.products["Q4_K"], one.products["Q4_K"], strict=True):
        assert isclose(rate.row(LONG)[0], 0.75 * 0.6 * lone.row(LONG)[0], rel_tol=0.01)
    assert isclose(two.attention["F16"][0].cell_s, 0.6 * CELL_S, rel_tol=1e-6)


def timed(seconds: float, least_s: float) -> Timing:
    """A job's timing."""
    return Timing(seconds=seconds, spread_s=0.0, least_s=least_s, busy=0.0)


def test_what_others_made_slower_counts_as_one_threads() -> None:
    """Several threads are as slow as their fastest undisturbed repetition, and no slower than one without any."""
    one, others = next(products((1,), GGMLType.Q6_K, repacked=False)), Nodes(n_threads=1)
    two, waiting = replace(one, n_threads=2), replace(others, n_threads=2)

    def seconds(timing: Timing) -> float:
        timings: dict[Job, Timing] = {
            one: timed(1.0, 0.9),
            two: timing,
            others: timed(1.0, 1.0),
            waiting: timed(3.0, 3.0),
        }
        found = believed(timings)
        assert (found[one], found[waiting]) == (1.0, 3.0)  # a barrier is another thread's, by its nature
        return found[two]

    assert seconds(timed(0.6, 0.5)) == 0.6
    assert seconds(timed(1.7, 1.5)) == 1.5  # undisturbed, and slower all the same
    assert seconds(timed(9.0, 0.7)) == 1.0
    assert seconds(timed(50.0, 0.0)) == 1.0  # never undisturbed


def test_products_that_others_made_slower_are_counted() -> None:
    """What threads are slower at by themselves tells nothing of a busy machine."""
    one = list(products((1,), GGMLType.Q6_K, repacked=False))[:4]
    alone: dict[Job, Timing] = {job: timed(1.0, 1.0) for job in one}
    two: list[Job] = [replace(job, n_threads=2) for job in one]

    assert slower_with_threads(alone) == 0
    assert slower_with_threads({**alone, **dict.fromkeys(two, timed(0.6, 0.6))}) == 0
    assert slower_with_threads({**alone, **dict.fromkeys(two, timed(1.7, 1.5))}) == 0
    assert slower_with_threads({**alone, **dict.fromkeys(two, timed(1.7, 0.7))}) == 1
    assert slower_with_threads({**alone, **dict.fromkeys(two, timed(1.7, 0.0))}) == 1


def test_disturbed_repetitions_do_not_count() -> None:
    """Seconds are those of repetitions in which no thread waited for a processor, while there are any."""
    calm = [Sample(1.0, 0.0, 1.0, 1.0), Sample(1.1, 0.0, 1.0, 1.0), Sample(1.3, 0.01, 1.0, 1.0)]
    busy = [
        Sample(3.0, 0.4, 1.0, 1.0),
        Sample(2.0, 0.5, 1.0, 1.0),
        Sample(9.0, 0.6, 1.0, 1.0),
        Sample(8.0, 0.6, 1.0, 1.0),
    ]
    assert summed([*calm, Sample(0.5, 0.5, 1.0, 1.0), Sample(9.0, 0.5, 1.0, 1.0)], 2).seconds == 1.1
    each = summed(calm, 2).each_of(2)
    assert (each.seconds, each.least_s, each.busy) == (0.55, 0.5, 0.0)
    assert isclose(each.spread_s, 0.075)
    assert summed(busy, 2).seconds == 5.5
    assert summed(busy, 2).least_s == 0.0
    assert summed(busy, 1).busy == 0.55


def test_seconds_are_those_at_one_pace() -> None:
    """A repetition while the gauge took twice as long counts half its seconds, where arithmetic is what took them."""
    found = [Sample(1.0, 0.0, 1.0, 1.0), Sample(2.0, 0.0, 2.0, 2.0), Sample(3.0, 0.0, 3.0, 3.0)]
    assert summed(found, 2, gauge_s=1.5).seconds == 1.5
    assert summed(found, 2, gauge_s=4.0, follows=0.5).seconds == pytest.approx(2**1.5)
    assert summed(found, 2).seconds == 2.0


@pytest.mark.parametrize(
    ("ggml_type", "n_columns", "expected"),
    [
        (
            GGMLType.F16,
            2,
            (224, 256, MIDDLE, PAGE, LONG),
        ),  # four rows of 448 bytes are less than 2 KiB, of 512 they are not
        (GGMLType.Q8_0, 8, (448, 512, MIDDLE, PAGE, LONG)),
        (GGMLType.Q8_0, 1, (SHORT, PAGE, LONG, *LONGER)),
        (GGMLType.Q4_1, 2, (SHORT, MIDDLE, PAGE, LONG, LONGER[1])),
        (GGMLType.IQ3_S, 1, (LONG, LONGER[1])),
    ],
)
def test_lengths_of_rows_from_memory(ggml_type: GGMLType, n_columns: int, expected: tuple[int, ...]) -> None:
    """One column has very long rows, too; four rows at once lie on both sides of 2 KiB; repacked ones are alike."""
    assert lengths(ggml_type, n_columns, repacked=False) == expected
    assert set(lengths(ggml_type, n_columns, repacked=True)) <= {SHORT, MIDDLE, PAGE, LONG, LONGER[1]}


@pytest.mark.parametrize("large", [LARGE, 200 << 20])
def test_caches_that_come_from_memory_are_larger_than_any_that_a_processor_has(large: int) -> None:
    """Of a type with fewer bytes a cell, and of layers that few of make so many bytes, as well."""
    far = [job for job in attentions((1,), large=large) if job.n_cells == FAR_CELLS and not job.masked]

    assert {job.type_kv for job in far} == set(CACHE_TYPES)
    assert all(job.nbytes >= large for job in far)


def test_a_look_that_was_interrupted_says_nothing_of_the_pace() -> None:
    """A repetition beside a look that took a hundred times as long counts with its own seconds."""
    assert summed([Sample(2.0, 0.0, 1.0, 199.0)], 2, gauge_s=1.0).seconds == 2.0


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_how_closely_jobs_follow_the_gauge(power: float) -> None:
    """Jobs whose seconds are a power of the gauge's follow it with that power, each from its own level."""
    jobs = [[Sample(level * g**power, 0.0, g, g) for g in (1.0, 1.2, 1.7)] for level in (1.0, 30.0)]
    assert how_closely(jobs) == pytest.approx((power, power))
    assert how_closely([[Sample(1.0, 0.0, 2.0, 2.0)]]) == (1.0, 1.0)


def test_chance_of_the_looks_hides_how_closely_jobs_follow() -> None:
    """Where looks are off by chance, they tell a repetition's seconds less well; the pace's power is found still."""
    paces = [(pace, a, b) for pace in (1.0, 1.5) for a in (0.8, 1.25) for b in (0.8, 1.25)]
    near, true = how_closely([[Sample(pace, 0.0, pace * a, pace * b) for pace, a, b in paces]])
    assert near < 0.8
    assert true == pytest.approx(1.0)


def test_fewer_bytes_never_come_more_slowly() -> None:
    """A rate that was disturbed is no less than that of more bytes."""
    assert falling([(1, 50.0), (2, 3.0), (4, 20.0), (8, 10.0)]) == ((1, 50.0), (2, 20.0), (4, 20.0), (8, 10.0))
