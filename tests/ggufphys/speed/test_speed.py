"""Predicted seconds on machines whose rates are round numbers, so that the right answer is worked out by hand."""

import json
from dataclasses import asdict, replace
from math import isclose
from pathlib import Path

import pytest

from ggufphys import GGUFFile, Params, open_gguf
from ggufphys.cli import main
from ggufphys.gguf import GGMLType
from ggufphys.graph import ops
from ggufphys.graph.describing.cost import Cost, distinct_experts
from ggufphys.graph.ir import Tensor
from ggufphys.machine.host import MainMemory
from ggufphys.report.speed import machine_text
from ggufphys.speed.costs import predict_costs
from ggufphys.speed.kept import keep
from ggufphys.speed.nodes import SCANNED_STATES, Surroundings, Weight, converted, node_seconds
from ggufphys.speed.predict import predict_speed
from ggufphys.speed.rates import (
    RULES,
    AttentionRate,
    CalibrationError,
    Machine,
    OperationRate,
    Processor,
    ProductRate,
)
from ggufphys.speed.steps import cells_seen
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model

N_LAYER = 6


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    """A llama of six layers."""
    path = tmp_path_factory.mktemp("speed") / "llama.gguf"
    write_model(path, llama_metadata(block_count=N_LAYER, context_length=8192), llama_tensors(n_layer=N_LAYER))
    with open_gguf(path) as gguf:
        return gguf


def sheet(bytes_per_s: float, flops_per_s: float, **more: object) -> Machine:
    """A machine of which a data sheet is all that is known."""
    cpu = Processor(name="CPU", n_threads=1, streams=((0, bytes_per_s),), flops_per_s=flops_per_s, **more)  # type: ignore[arg-type]
    return Machine(name="sheet", basis="published", source="a test", processors=[cpu])


def rate(n_columns: int, weight_s: float, fetched_s: float = 0.0) -> ProductRate:
    """A kernel's rate."""
    return ProductRate(n_columns=n_columns, row_s=0, weight_s=weight_s, fetched=((1024, fetched_s),))


CPU = Processor(
    name="CPU",
    n_threads=2,
    streams=((1 << 20, 100e9), (1 << 30, 10e9)),
    flops_per_s=1e12,
    node_s=1e-6,
    products={
        "Q4_K": [rate(1, 5e-11, 5e-11), rate(2, 1.5e-10, 5e-11), rate(4, 4e-10), rate(512, 512e-10)],
        "Q4_K repacked": [rate(1, 1e-10), rate(4, 1e-10), rate(512, 128e-10)],
    },
    attention={
        "F16": [
            AttentionRate(
                head_size=size, n_head_kv=n, head_s=0, cell_s=1e-9 * size * n, far_cell_s=0, tiled_cell_s=1e-9
            )
            for size in (64, 128)
            for n in (2, 8)
        ]
    },
    operations={"ADD": OperationRate(row_s=1e-9, rows_s=2e-9), "CPY": OperationRate(row_s=1e-9, rows_s=2e-9)},
)


def around(cold: float = 1.0, *, repacked: bool = False, shifted: bool = False, cells: float = 0.0) -> Surroundings:
    """A node's surroundings with weights in Q4_K."""
    return Surroundings(
        cold=cold,
        cold_by_four=cold,
        weights=lambda t: ((Weight(GGMLType.Q4_K, repacked, shifted), 1.0),),
        visible=lambda node, n, tile: cells,
    )


def product(n_in: int, n_out: int, n_columns: int) -> Tensor:
    """A product's node."""
    matrix = Tensor("NONE", GGMLType.Q4_K, (n_in, n_out), external=True, name="blk.0.ffn_up.weight")
    columns = Tensor("NONE", GGMLType.F32, (n_in, n_columns), is_input=True)
    return Tensor("MUL_MAT", GGMLType.F32, (n_out, n_columns), (matrix, columns))


@pytest.mark.parametrize(
    ("n_columns", "repacked", "expected"),
    [
        (1, False, 1.0),
        (3, False, 3.0),
        (512, False, 512.0),
        (1024, False, 1024.0),
        (4, True, 1.0),
        (6, True, 3.0),
        (8, True, 2.0),
        (12, True, 3.0),  # no line leads from eight to sixteen
        (15, True, 6.0),
        (16, True, 4.0),  # of 128 for 512
        (21, True, 6.0),
    ],
)
def test_products_by_columns(n_columns: int, repacked: bool, expected: float) -> None:
    """Between measured batches lie straight lines; repacked kernels take columns by four, and the rest one by one."""
    seconds = node_seconds(product(625, 16_000, n_columns), Cost(), CPU, around(repacked=repacked))

    assert isclose(seconds.total - seconds.overhead, expected * 1e-10 * 1e7)
    assert seconds.overhead == 2e-6


@pytest.mark.parametrize(
    ("n_threads", "n_out", "n_columns", "expected"),
    [
        (1, 1_000, 1, 2.0),  # from memory
        (1, 1_000, 2, 3.0),  # half a megabyte is still in the core's cache for the second column
        (1, 2 << 20, 2, 4.0),  # a matrix of a gigabyte is not: it comes again
        (1, 2 << 20, 3, 6.0),
        (2, 7_000, 2, 3.0),  # of several threads each takes a quarter of its rows at once
        (1, 2 << 20, 5, 1.5 + 2.0),  # four columns together, and one
        (1, 1_000, 8, 1.5 + 1.0),  # four, and four of a matrix that is near
        (1, 2 << 20, 8, 1.5 + 1.5),  # and of one that is not
        (1, 2 << 20, 16, 4.0),  # together
        (1, 2 << 20, 21, 4.0 + 1.5 + 2.0),
    ],
)
def test_columns_that_do_not_go_together_fetch_weights_again(
    n_threads: int, n_out: int, n_columns: int, expected: float
) -> None:
    """Behind the first go weights come from a cache as far as a thread's rows of one go fit into it."""
    products = {"Q4_K repacked": [rate(1, 1e-10, 1e-10), rate(4, 1e-10, 5e-11), rate(512, 128e-10)]}
    cpu = replace(CPU, n_threads=n_threads, products=products)

    seconds = node_seconds(product(1024, n_out, n_columns), Cost(), cpu, around(repacked=True))

    assert seconds.total - seconds.overhead == pytest.approx(expected * 1e-10 * 1024 * n_out, rel=1e-3)


@pytest.mark.parametrize(("cold", "begun"), [(1.0, 1.0), (0.25, 0.25), (0.0, 0.0)])
def test_a_product_from_memory_begins_once(cold: float, begun: float) -> None:
    """However large, it takes so much until weights come as fast as measured, by the share that isn't in a cache."""
    begins = replace(CPU, products={"Q4_K": [replace(r, begin_s=6e-6) for r in CPU.products["Q4_K"]]})
    for n_out in (64, 16_000):
        node = product(625, n_out, 1)
        more = (
            node_seconds(node, Cost(), begins, around(cold)).total - node_seconds(node, Cost(), CPU, around(cold)).total
        )

        assert more == pytest.approx(begun * 6e-6)


@pytest.mark.parametrize(
    ("n_threads", "n_out", "repacked", "expected"),
    [
        (2, 576, False, 2 * 5 * 64),  # nine chunks: one thread has five of them
        (2, 1024, False, 1024),
        (2, 192, False, 192),  # so few are divided evenly
        (1, 576, False, 576),
        (4, 1152, False, 4 * 5 * 64),
        (2, 576, True, 576),
    ],
)
def test_the_thread_with_most_chunks_is_waited_for(n_threads: int, n_out: int, repacked: bool, expected: int) -> None:
    """One column's rows are taken by 64, so that all wait for the thread that has one chunk more."""
    cpu = replace(CPU, n_threads=n_threads)
    seconds = node_seconds(product(1000, n_out, 1), Cost(), cpu, around(repacked=repacked))

    assert seconds.total - seconds.overhead == pytest.approx(expected * 1e-10 * 1000)


@pytest.mark.parametrize(
    ("n_threads", "n_columns", "repacked", "expected"),
    [
        (1, 3, False, (3 * 768, 0)),
        (2, 3, False, (3 * 1024, 0)),  # three blocks a column: one thread has two
        (1, 6, True, (2 * 768, 4 * 768)),
        (2, 1, True, (2 * 768, 0)),  # the other thread waits
        (2, 4, True, (0, 8 * 768)),
        (2, 10, True, (2 * 768, 8 * 768)),
    ],
)
def test_columns_are_converted_by_the_thread_with_most(
    n_threads: int, n_columns: int, repacked: bool, expected: tuple[int, int]
) -> None:
    """Plain kernels' columns are divided by blocks, repacked ones' by four columns a thread; all wait for the last."""
    assert converted(Weight(GGMLType.Q4_K, repacked), 768, n_columns, n_threads) == expected
    rates = [replace(rate(1, 0.0), converted_s=1e-9), replace(rate(4, 0.0), converted_s=1e-10)]
    cpu = replace(CPU, n_threads=n_threads, products={"Q4_K" + " repacked" * repacked: rates})
    seconds = node_seconds(product(768, 64, n_columns), Cost(), cpu, around(repacked=repacked))

    assert seconds.total - seconds.overhead == pytest.approx(expected[0] * 1e-9 + expected[1] * 1e-10)


def test_products_from_a_cache_are_faster() -> None:
    """With half of the weights in a cache a product takes what lies in the middle, and memory limits it no more."""
    node = product(625, 16_000, 1)
    seconds = {cold: node_seconds(node, Cost(), CPU, around(cold)) for cold in (0.0, 0.5, 1.0)}

    assert [s.total - s.overhead for s in seconds.values()] == pytest.approx([5e-4, 7.5e-4, 1e-3])
    assert seconds[1.0].limit == "bandwidth"
    assert seconds[0.0].limit == "compute"


def test_experts_are_fetched_once_and_multiplied_column_by_column() -> None:
    """A batch of experts takes each column's arithmetic, and the fetching of the experts it is expected to touch."""
    n_expert, n_used, n_tokens = 8, 2, 4
    matrix = Tensor("NONE", GGMLType.Q4_K, (1000, 100, n_expert), external=True, name="blk.0.ffn_up_exps.weight")
    ids = Tensor("NONE", GGMLType.I32, (n_used, n_tokens), is_input=True)
    b = Tensor("NONE", GGMLType.F32, (1000, 1, n_tokens), is_input=True)
    node = Tensor("MUL_MAT_ID", GGMLType.F32, (100, n_used, n_tokens), (matrix, b, ids))
    seconds = node_seconds(node, Cost(), CPU, around())

    expected = n_used * n_tokens * 1e5 * 5e-11 + distinct_experts(n_expert, n_used, n_tokens) * 1e5 * 5e-11
    assert isclose(seconds.total - seconds.overhead, expected)


def test_rows_that_are_shorter_come_more_slowly() -> None:
    """What a row takes from memory lies on lines between the lengths that were measured; beyond them weights count."""
    known = ProductRate(n_columns=2, row_s=1e-8, weight_s=1e-10, fetched=((512, 4e-11), (4096, 1e-11)))

    assert [known.row(n)[1] - known.row(n)[0] for n in (256, 512, 2304, 8192)] == pytest.approx(
        [256 * 4e-11, 512 * 4e-11, (512 * 4e-11 + 4096 * 1e-11) / 2, 8192 * 1e-11]
    )
    assert known.row(1000)[0] == pytest.approx(1e-8 + 1e-7)


@pytest.mark.parametrize(
    ("head_size", "n_head_kv", "expected"), [(64, 2, 128), (96, 2, 192), (64, 4, 320), (128, 16, 1024), (64, 1, 128)]
)
def test_attention_by_its_heads(head_size: int, n_head_kv: int, expected: float) -> None:
    """A cell's seconds lie on lines between the head sizes measured, and between the numbers of heads by doublings."""
    q = Tensor("NONE", GGMLType.F32, (head_size, 1, n_head_kv), external=True)
    kv = Tensor("NONE", GGMLType.F16, (head_size, 1024, n_head_kv), external=True)
    mask = Tensor("NONE", GGMLType.F16, (1024, 1), external=True)
    node = Tensor("FLASH_ATTN_EXT", GGMLType.F32, (head_size, n_head_kv, 1), (q, kv, kv, mask))
    seconds = node_seconds(node, Cost(), CPU, around(cells=1024))

    assert seconds.total - seconds.overhead == pytest.approx(n_head_kv * 1024 * 1e-9 * expected)


@pytest.mark.parametrize(
    ("n_threads", "n_cells", "seen", "expected"),
    [
        (1, 1280, 1025, 1025 + 0.1 * 255),
        (2, 1280, 1025, 2 * 640),  # the second thread sees 385 cells of its 640
        (4, 1280, 1025, 4 * 320),
        (2, 1280, 512, 512 + 0.1 * 768),  # a window: they may lie anywhere
        (2, 256, 200, 200 + 0.1 * 56),  # few cells: threads share the heads
    ],
)
def test_a_token_s_cells_are_divided_as_they_lie(n_threads: int, n_cells: int, seen: int, expected: float) -> None:
    """The thread whose part of the cache is used in full is waited for by the one whose part is used for less."""
    rates = [
        AttentionRate(
            head_size=64, n_head_kv=2, head_s=0, cell_s=1e-8, far_cell_s=0, tiled_cell_s=0, masked_cell_s=1e-9
        )
    ]
    cpu = replace(CPU, n_threads=n_threads, attention={"F16": rates})
    q = Tensor("NONE", GGMLType.F32, (64, 1, 2), external=True)
    kv = Tensor("NONE", GGMLType.F16, (64, n_cells, 2), external=True)
    mask = Tensor("NONE", GGMLType.F16, (n_cells, 1), external=True)
    node = Tensor("FLASH_ATTN_EXT", GGMLType.F32, (64, 2, 1), (q, kv, kv, mask))
    found = node_seconds(node, Cost(), cpu, around(cells=seen))

    assert found.total - found.overhead == pytest.approx(2 * expected * 1e-8)


def test_masked_cells_are_stepped_over() -> None:
    """Cells that a token does not see take what looking at the mask takes: those of other sequences in one cache."""
    rates = [
        AttentionRate(
            head_size=64, n_head_kv=2, head_s=0, cell_s=1e-8, far_cell_s=0, tiled_cell_s=0, masked_cell_s=1e-9
        )
    ]
    cpu = replace(CPU, attention={"F16": rates})
    n_tokens, n_head, n_cells, seen = 8, 2, 2048, 8 * 200
    q = Tensor("NONE", GGMLType.F32, (64, n_tokens, n_head), external=True)
    kv = Tensor("NONE", GGMLType.F16, (64, n_cells, n_head), external=True)
    mask = Tensor("NONE", GGMLType.F16, (n_cells, n_tokens), external=True)
    node = Tensor("FLASH_ATTN_EXT", GGMLType.F32, (64, n_head, n_tokens), (q, kv, kv, mask))
    found = node_seconds(node, Cost(), cpu, around(cells=seen))

    expected = n_head * (seen * 1e-8 + (n_tokens * n_cells - seen) * 1e-9)
    assert found.total - found.overhead == pytest.approx(expected)


@pytest.mark.parametrize(("op", "n_parts"), [("SSM_SCAN", 2), ("SSM_CONV", 2), ("CONCAT", 1), ("ADD", 1)])
def test_threads_share_what_an_operation_divides(op: str, n_parts: int) -> None:
    """Heads of a scan and channels of a convolution are shared although there is one row; a concatenation's are not."""
    cpu = replace(CPU, operations={op: OperationRate(row_s=1e-9, rows_s=2e-9)})
    state = Tensor("NONE", GGMLType.F32, (128, 64, 8, 1), external=True)
    x = Tensor("NONE", GGMLType.F32, (64, 8, 1, 1), external=True)
    seconds = node_seconds(Tensor(op, GGMLType.F32, (512,), (state, x)), Cost(), cpu, around())

    assert seconds.total - seconds.overhead == pytest.approx(512 * 1e-9 / n_parts)


@pytest.mark.parametrize(
    ("type_name", "n_columns", "from_memory"),
    [("F16", 1, 0.0), ("F16", 2, 1.0), ("F16 repacked", 4, 0.0), ("Q4_K", 2, 0.0)],
)
def test_rows_that_are_read_four_at_once(type_name: str, n_columns: int, from_memory: float) -> None:
    """With two columns some kernels take four rows at once, whose way from memory is another than that of one."""
    rates = [rate(n, 1e-10, 3e-10) for n in (1, 2, 4)]
    name, _, repacked = type_name.partition(" ")
    weight = Weight(GGMLType[name], bool(repacked))
    places = replace(around(0.0), cold_by_four=1.0, weights=lambda t: ((weight, 1.0),))
    found = node_seconds(product(1024, 1024, n_columns), Cost(), replace(CPU, products={type_name: rates}), places)

    assert found.total - found.overhead == pytest.approx((1e-10 + from_memory * 3e-10) * 1024 * 1024)


@pytest.mark.parametrize(
    ("n_in", "shifted", "expected"),
    [
        (1024, False, 2e-10),  # 576 bytes of Q4_K are nine cache lines
        (1024, True, 2.6e-10),
        (768, False, 2.6e-10),  # 432 bytes: most rows begin within one
        (768, True, 2.6e-10),
    ],
)
def test_rows_that_begin_within_a_cache_line(n_in: int, shifted: bool, expected: float) -> None:
    """They have seconds of their own from memory, and no others from a cache."""
    rates = [replace(rate(n, 1e-10, 1e-10), fetched_within=((1024, 1.6e-10),)) for n in (1, 2, 4)]
    cpu = replace(CPU, products={"Q4_K": rates})
    far, near = (
        node_seconds(product(n_in, 1024, 2), Cost(), cpu, around(cold, shifted=shifted)) for cold in (1.0, 0.0)
    )

    assert far.total - far.overhead == pytest.approx(expected * n_in * 1024)
    assert near.total - near.overhead == pytest.approx(1e-10 * n_in * 1024)


@pytest.mark.parametrize("use_mmap", [True, False])
def test_a_mapped_files_weights_lie_as_in_the_file(tmp_path: Path, use_mmap: bool) -> None:
    """Where tensors' data begin 32 bytes behind a cache line, so do the weights of a mapped file, and no others."""
    rates = [rate(n, 1e-10, 1e-10) for n in (1, 2, 4, 512)]
    straight, within = (
        Machine(
            name="m", basis="calibrated", source="s",
            processors=(replace(CPU, streams=((0, 1e9),), products=dict.fromkeys(("F16", "Q8_0", "F32"), made)),),
        )
        for made in (rates, [replace(r, fetched_within=((1, 1e-9),)) for r in rates])
    )  # fmt: skip
    slower = {}
    for more in (0, 32):
        path = tmp_path / f"{more}.gguf"
        write_model(path, llama_metadata(description="d" * more), llama_tensors())
        with open_gguf(path) as gguf:
            begins = gguf.shards[0].header.data_offset % 64
            found = [predict_speed(gguf, Params(n_ctx=512, use_mmap=use_mmap), m).prefill for m in (straight, within)]
        slower[begins] = found[1].seconds.value > 1.01 * found[0].seconds.value

    assert slower == {0: False, 32: use_mmap}


@pytest.mark.parametrize(("n_bytes", "expected"), [(4 << 20, 2 << 20), (1 << 30, (1 << 30) / 10)])
def test_activations_that_no_cache_holds_come_from_memory(n_bytes: int, expected: float) -> None:
    """What a node reads and writes takes its way from main memory where that is more than a cache has room for."""
    node = Tensor("ADD", GGMLType.F32, (1 << 20,), ())
    cost = Cost(
        activation_read_bytes=n_bytes // 2, activation_written_bytes=n_bytes // 4, cache_written_bytes=n_bytes // 4
    )
    found = node_seconds(node, cost, CPU, around(0.0))

    assert found.total - found.overhead == pytest.approx(expected * 1e-9, rel=1e-3)
    assert found.limit == ("compute" if n_bytes < 1 << 30 else "bandwidth")


@pytest.mark.parametrize("op", ["GATED_DELTA_NET", "GATED_LINEAR_ATTN", "RWKV_WKV6", "RWKV_WKV7"])
def test_scans_take_the_length_of_their_states(op: str) -> None:
    """An element of a token takes a state's length, as measured with another; threads share the heads."""
    cpu = replace(CPU, operations={op: OperationRate(row_s=1e-9, rows_s=2e-9)})
    x = Tensor("NONE", GGMLType.F32, (32, 8, 1, 1), external=True)
    seconds = node_seconds(Tensor(op, GGMLType.F32, (256,), (x, x, x)), Cost(), cpu, around())

    assert seconds.total - seconds.overhead == pytest.approx(256 * 1e-9 * 32 / SCANNED_STATES[op] / 2)


@pytest.mark.parametrize(("op", "ne", "name"), [
    ("MUL", (1, 8), "MUL by row"), ("DIV", (1, 8), "MUL by row"), ("ADD", (1, 8), "MUL by row"),
    ("MUL", (512, 1), "MUL"), ("DIV", (512, 8), "MUL"),
])  # fmt: skip
def test_a_factor_a_row_is_measured_by_itself(op: str, ne: tuple[int, int], name: str) -> None:
    """Ggml's loop goes over the second operand's row: with one element there, each turn is a call."""
    rates = {n: OperationRate(row_s=s, rows_s=s) for n, s in (("MUL", 1e-9), ("MUL by row", 5e-9), ("ADD", 2e-9))}
    a, b = (Tensor("NONE", GGMLType.F32, shape, external=True) for shape in ((512, 8), ne))
    seconds = node_seconds(Tensor(op, GGMLType.F32, (512, 8), (a, b)), Cost(), replace(CPU, operations=rates), around())

    assert seconds.total - seconds.overhead == pytest.approx(4096 * rates[name].row_s / CPU.n_threads)


@pytest.mark.parametrize(("is_transposed", "n_tokens", "each_s"), [(True, 8, 5e-9), (False, 8, 1e-9), (True, 1, 1e-9)])
def test_tokens_behind_a_state_lie_across(is_transposed: bool, n_tokens: int, each_s: float) -> None:
    """A convolution's input is a state and tokens turned around, whose neighbours are a row apart, if there are any."""
    rates = {n: OperationRate(row_s=s, rows_s=s) for n, s in (("CONCAT", 1e-9), ("CONCAT transposed", 5e-9))}
    tokens = Tensor("NONE", GGMLType.F32, (64, n_tokens), external=True)
    b = ops.transpose(tokens) if is_transposed else Tensor("NONE", GGMLType.F32, (n_tokens, 64), external=True)
    node = ops.concat(Tensor("NONE", GGMLType.F32, (3, 64), external=True), b, 0)
    seconds = node_seconds(node, Cost(), replace(CPU, operations=rates), around())

    assert seconds.total - seconds.overhead == pytest.approx((3 + n_tokens) * 64 * each_s)


@pytest.mark.parametrize(("op", "like"), [("CONT", "CPY"), ("ADD_ID", "ADD")])
def test_operations_that_are_alike(op: str, like: str) -> None:
    """A copy by another name is no guess, and takes what copies do."""
    rates = {"CPY": OperationRate(row_s=1e-9, rows_s=2e-9), "ADD": OperationRate(row_s=3e-9, rows_s=4e-9)}
    node = Tensor(op, GGMLType.F32, (512,), (Tensor("NONE", GGMLType.F32, (512,), external=True),))
    seconds = node_seconds(node, Cost(), replace(CPU, operations=rates), around())

    assert seconds.total - seconds.overhead == pytest.approx(512 * rates[like].row_s)
    assert seconds.guessed == 0


def test_a_slower_pace() -> None:
    """At twice the pace kernels take as much longer as they follow the gauge, from a cache and from memory."""
    slow = replace(CPU, follows={"products": 1.0, "products from memory": 0.0}).at_pace(2.0)
    node = product(625, 16_000, 1)

    assert node_seconds(node, Cost(), slow, around(0.0)).total == pytest.approx(2 * 5e-4 + 4e-6)
    assert node_seconds(node, Cost(), slow, around(1.0)).total == pytest.approx(1e-3 + 4e-6)
    assert slow.bytes_per_s == CPU.bytes_per_s
    assert slow.operations["ADD"].row_s == 2e-9
    assert replace(rate(1, 1e-10), begin_s=6e-6).slowed(2.0, 3.0).begin_s == pytest.approx(18e-6)


def test_types_that_were_not_measured_are_guessed() -> None:
    """A weight of another type takes what the nearest one does, and all of it counts as a guess."""
    other = replace(around(), weights=lambda t: ((Weight(GGMLType.IQ4_XS, repacked=False), 1.0),))
    seconds = node_seconds(product(625, 16_000, 1), Cost(), CPU, other)

    assert isclose(seconds.guessed, 1e-3)


@pytest.mark.parametrize(
    ("n_tokens", "depth", "window", "tile", "expected"),
    [
        (1, 0, 0, 1, 1),
        (4, 10, 0, 1, 11 + 12 + 13 + 14),
        (4, 10, 12, 1, 11 + 12 + 12 + 12),
        (128, 0, 0, 64, 64 * 64 + 64 * 128),
        (64, 1024, 128, 64, 64 * 192),
    ],
)
def test_cells_that_tokens_see(n_tokens: int, depth: int, window: int, tile: int, expected: int) -> None:
    """Tokens see those before them as far as the window goes, and by tiles all of a tile's cells."""
    assert cells_seen(n_tokens, depth, window, tile, 1 << 20) == expected


def test_a_data_sheet_gives_the_roofline(llama: GGUFFile) -> None:
    """With memory alone slow, decode takes bytes over bandwidth; with arithmetic alone slow FLOPs over their rate."""
    params = Params(n_ctx=4096, n_threads=1)
    decode = predict_costs(llama, params, depth=100).decode
    assert decode is not None
    slow_memory = predict_speed(llama, params, sheet(1e9, 1e30), depth=100).decode
    slow_arithmetic = predict_speed(llama, params, sheet(1e30, 1e9), depth=100).decode

    assert slow_memory is not None
    assert slow_arithmetic is not None
    assert isclose(slow_memory.seconds.value, decode.total.total_bytes / 1e9, rel_tol=0.02)
    assert slow_memory.limit == "bandwidth"
    assert isclose(slow_arithmetic.seconds.value, decode.total.flops / 1e9, rel_tol=0.02)
    assert slow_arithmetic.limit == "compute"


def test_other_figures_have_another_number(llama: GGUFFile) -> None:
    """Whoever makes the same rates predict other seconds raises RULES, so that older predictions are not counted."""
    context = Params(n_ctx=4096, n_seq_max=4, kv_unified=True, n_threads=2)
    machine = Machine(name="m", basis="calibrated", source="s", processors=(CPU,))
    asked = ({"depth": 0}, {"depth": 900}, {"batch": 4})
    found = [predict_speed(llama, context, machine, **lengths) for lengths in asked]
    seconds = [found[0].prefill.seconds.value, *(f.decode.seconds.value for f in found if f.decode)]

    assert (RULES, [float(f"{s:.4g}") for s in seconds]) == (3, [0.1753, 0.0003562, 0.003499, 0.001684])


def test_ranges_follow_the_band(llama: GGUFFile) -> None:
    """A figure's range is its machine's band: seconds 0.8 to 1.25 times, tokens a second the inverse."""
    machine = sheet(1e9, 1e12, band=(0.8, 1.25))
    decode = predict_speed(llama, Params(n_ctx=4096), machine).decode

    assert decode is not None
    assert decode.seconds.low == pytest.approx(0.8 * decode.seconds.value)
    assert decode.tok_per_s.low == pytest.approx(0.8 * decode.tok_per_s.value)
    assert decode.tok_per_s.high == pytest.approx(1.25 * decode.tok_per_s.value)


def test_machines_survive_json() -> None:
    """A machine read back is the one that was written."""
    machine = Machine(name="m", basis="calibrated", source="s", processors=(CPU,), disk_bytes_per_s=1e9)
    back = Machine.from_json(json.loads(json.dumps(machine.to_json())))

    assert asdict(back) == json.loads(json.dumps(asdict(machine))) | {
        "processors": asdict(back)["processors"],
        "notes": asdict(back)["notes"],
    }
    assert back.to_json() == Machine.from_json(json.loads(json.dumps(back.to_json()))).to_json()
    assert back.processors[0].products["Q4_K"] == tuple(CPU.products["Q4_K"])


@pytest.mark.parametrize("document", [{}, {"schema_version": 99}, {"schema_version": 2}, {"schema_version": 4, "x": 2}])
def test_foreign_calibrations_are_refused(document: dict[str, object]) -> None:
    """A file of another version, or of another kind, is an error that says to calibrate again."""
    with pytest.raises(CalibrationError, match="bench calibrate"):
        Machine.from_json(document)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"node_s": float("nan")}, "node_s is nan"),
        ({"node_s": -1.0}, "node_s is -1.0"),
        ({"node_s": "x"}, "node_s is 'x'"),
        ({"node_s": [1e-9]}, "node_s is [1e-09]"),
        ({"n_threads": 0.5}, "n_threads is 0.5, expected a whole number"),
        ({"n_threads": 0}, "expected a name and 1 or more"),
        ({"name": ["CPU"]}, "expected a name and 1 or more"),
        ({"band": [[1], 2]}, "band is"),
        (
            {"products": {"Q4_K": [{"n_columns": "x", "row_s": 0.0, "weight_s": 1e-9, "fetched": []}]}},
            "n_columns is 'x'",
        ),
        ({"products": {"Q4_K": [{"n_columns": 1, "row_s": 0.0, "weight_s": [], "fetched": []}]}}, "weight_s is []"),
        ({"streams": []}, "streams is"),
        ({"streams": [[0, 0.0]]}, "streams is"),
        ({"streams_by_four": [[0, 0.0]]}, "streams_by_four is"),
        ({"band": [1.0]}, "band is"),
        ({"products": {"Q4_K": []}}, "products.Q4_K is empty"),
        ({"products": {"Q9": [{"n_columns": 1, "row_s": 0.0, "weight_s": 1e-9, "fetched": []}]}}, "'Q9'"),
        ({"operations": {"ADD": {"row_s": 1e-9, "rows_s": float("inf")}}}, "rows_s is inf"),
    ],
)
def test_rates_that_are_none_are_refused(
    fields: dict[str, object], said: str, llama: GGUFFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A file that was cut, edited or mismeasured gives no figure: `inspect` says what is wrong with it and goes on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    document = Machine(name="m", basis="calibrated", source="s", processors=(CPU,)).to_json()
    document = json.loads(json.dumps(document))
    document["processors"][0] |= fields
    keep(json.dumps(document))

    assert main(["inspect", "--json", "-c", "1024", str(llama.path)]) == 0
    speed = json.loads(capsys.readouterr().out)["speed"]
    assert speed["decode_tok_per_s"] is None
    assert said in speed["reason"]
    assert "bench calibrate" in speed["reason"]


@pytest.mark.parametrize(
    "fields",
    [{"identity": 3}, {"identity": {"waiting": "x"}}, {"identity": {"threads": ["x"]}}, {"notes": 3}, {"notes": [3]},
     {"identity": {"waiting": {"OMP_WAIT_POLICY": 1}}}, {"name": None}],
)  # fmt: skip
def test_texts_that_are_none_are_refused(fields: dict[str, object]) -> None:
    """Neither does what stands beside the rates end in a traceback."""
    document = Machine(name="m", basis="calibrated", source="s", processors=(CPU,)).to_json() | fields
    with pytest.raises(CalibrationError, match="bench calibrate"):
        Machine.from_json(json.loads(json.dumps(document)))


def test_a_calibration_is_shown_as_a_table() -> None:
    """Kernels that were measured with other numbers of columns than the rest have gaps in the table, not an error."""
    text = machine_text(Machine(name="m", basis="calibrated", source="s", processors=[CPU]), None)
    rows = {line.split("  ")[0]: line for line in text.splitlines()}

    assert rows["billion weights a second"].split()[-8:] == ["x", "1", "x", "2", "x", "4", "x", "512"]
    assert rows["Q4_K"].split()[1:] == ["10.00", "10.00", "10.00", "10.00"]
    assert rows["Q4_K repacked"].split()[2:] == ["10.00", "40.00", "40.00"]


def test_weights_beyond_memory_are_told(
    llama: GGUFFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rates are those of weights that stay in memory; where it is too small for them, a note says so."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep(json.dumps(Machine(name="m", basis="calibrated", source="s", processors=(CPU,)).to_json()))
    for total_bytes, n_notes in ((1 << 60, 0), (1 << 10, 1), (0, 0)):
        memory = MainMemory(total_bytes=total_bytes, available_bytes=0)
        monkeypatch.setattr("ggufphys.machine.host.main_memory", lambda memory=memory: memory)
        assert main(["inspect", "--json", "-c", "1024", str(llama.path)]) == 0
        notes = json.loads(capsys.readouterr().out)["speed"]["notes"]
        assert sum("this machine has 1.00 KiB" in note for note in notes) == n_notes


def test_inspect_says_speed(
    llama: GGUFFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`inspect --json` has figures with ranges where the machine is calibrated, and nulls with a reason elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["inspect", "--json", "-c", "1024", str(llama.path)]) == 0
    unknown = json.loads(capsys.readouterr().out)["speed"]
    assert unknown["decode_tok_per_s"] is None
    assert "bench calibrate" in unknown["reason"]

    machine = replace(sheet(1e9, 1e12), basis="calibrated")
    keep(json.dumps(machine.to_json()))
    assert main(["inspect", "--json", "-c", "4096", "--depth", "100", "--batch", "2", str(llama.path)]) == 0
    known = json.loads(capsys.readouterr().out)["speed"]

    for name in ("prefill_tok_per_s", "decode_tok_per_s"):
        assert known[name]["low"] <= known[name]["value"] <= known[name]["high"]
    assert (known["depth"], known["batch"]) == (100, 2)
    assert known["limit"] in ("bandwidth", "compute", "overhead")
