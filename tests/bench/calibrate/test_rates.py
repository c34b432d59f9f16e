"""Rates from seconds: what goes in comes out again, without llama.cpp and without a clock."""

from math import isclose

from bench.calibrate.clock import summed
from bench.calibrate.jobs import (
    FAR_CELLS,
    MANY_COLUMNS,
    N_LAYERS,
    SMALL_BYTES,
    Attention,
    Job,
    Nodes,
    Operation,
    Product,
    Step,
    attentions,
    operations,
    products,
    streams,
)
from bench.calibrate.rates import falling, processor
from ggufphys.gguf import GGMLType

NODE_S = 1e-6
ROW_S, WEIGHT_S, CACHED_S = 2e-8, 1e-10, 6e-11
HEAD_S, CELL_S, FAR_S, TILED_S = 3e-7, 4e-9, 2e-9, 5e-10


def fake(job: Job) -> float:
    """Seconds of a job on a machine with these rates."""
    if isinstance(job, Product):
        if job.is_stream:
            return job.nbytes / job.n_matrices / 5e9
        fetched_s = 0.0 if job.nbytes <= 2 * SMALL_BYTES else WEIGHT_S - CACHED_S  # once, for all columns
        return 2 * NODE_S + job.n_out * (job.n_columns * (ROW_S + job.n_in * CACHED_S) + job.n_in * fetched_s)
    if isinstance(job, Attention):
        cell_s = TILED_S if job.n_tokens > 1 else CELL_S
        head_s = HEAD_S if job.n_tokens == 1 else 0.0
        far_s = FAR_S * job.n_head_kv * job.n_cells * (job.n_cells == FAR_CELLS)
        return 2 * NODE_S + far_s + job.n_head * job.n_tokens * (head_s + job.n_cells * cell_s)
    if isinstance(job, Operation):
        return NODE_S + job.n_row * job.n_rows * (1e-9 if job.n_rows == 1 else 2e-9)
    if isinstance(job, Nodes):
        return NODE_S
    return 1e-4 + 100 * job.n_layers * 1e-7


def test_rates_are_those_of_the_machine() -> None:
    """A processor made of the seconds of a known machine has that machine's rates."""
    jobs: list[Job] = [Nodes(n_threads=1), *streams((1,)), *attentions((1,)), *operations((1,))]
    jobs += products((1,), GGMLType.Q4_K, repacked=False, large_bytes=64 << 20)
    jobs += [Step(n_threads=1, n_layers=n) for n in N_LAYERS]
    cpu = processor({job: fake(job) for job in jobs}, 1, lambda host, n_layer: (0.0, 100 * n_layer))

    assert cpu.node_s == NODE_S
    assert isclose(cpu.bytes_per_s, 5e9)
    for rate in cpu.products["Q4_K"]:
        assert isclose(rate.row_s, rate.n_columns * ROW_S, rel_tol=1e-6)
        fetched_s = (WEIGHT_S - CACHED_S) * (rate.n_columns < MANY_COLUMNS)
        assert isclose(rate.weight_s, rate.n_columns * CACHED_S + fetched_s, rel_tol=1e-6)
    assert isclose(cpu.products["Q4_K"][0].cached_weight_s, CACHED_S, rel_tol=1e-6)
    for attention in cpu.attention["F16"]:
        assert isclose(attention.head_s, HEAD_S, rel_tol=1e-6)
        assert isclose(attention.cell_s, CELL_S, rel_tol=1e-6)
        assert isclose(attention.far_cell_s, FAR_S, rel_tol=1e-6)
        assert isclose(attention.tiled_cell_s, TILED_S, rel_tol=1e-6)
    assert isclose(cpu.operations["ADD"].row_s, 1e-9)
    assert isclose(cpu.operations["ADD"].rows_s, 2e-9)
    assert isclose(cpu.step_s, 1e-4, rel_tol=1e-6)
    assert isclose(cpu.step_node_s, 1e-7, rel_tol=1e-6)


def test_disturbed_repetitions_do_not_count() -> None:
    """Seconds are those of repetitions in which no thread waited for a processor, while there are any."""
    calm = [(1.0, 0.0), (1.1, 0.0), (1.2, 0.01), (1.3, 0.0)]
    assert summed([*calm, (0.5, 0.5), (9.0, 0.5)], 2).seconds == 1.1
    assert summed([(3.0, 0.4), (2.0, 0.5), (9.0, 0.6), (8.0, 0.6)], 2).seconds == 3.0
    assert summed([(3.0, 0.4), (2.0, 0.5), (9.0, 0.6), (8.0, 0.6)], 1).busy == 0.6


def test_fewer_bytes_never_come_more_slowly() -> None:
    """A rate that was disturbed is no less than that of more bytes."""
    assert falling([(1, 50.0), (2, 3.0), (4, 20.0), (8, 10.0)]) == ((1, 50.0), (2, 20.0), (4, 20.0), (8, 10.0))
