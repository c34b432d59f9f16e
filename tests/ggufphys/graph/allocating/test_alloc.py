"""The allocator's simulation on graphs small enough to lay out by hand, and what must hold of every layout."""

from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys import Params, open_gguf
from ggufphys.arch import read_hparams, rule_for
from ggufphys.context import resolve
from ggufphys.gguf import GGMLType
from ggufphys.graph import ops
from ggufphys.graph.allocating.alloc import allocate, written_sizes
from ggufphys.graph.allocating.free_list import FreeList
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.allocating.work import work_bytes
from ggufphys.graph.batch import Batch, reserved_batches
from ggufphys.graph.ir import Graph, Tensor
from tests.ggufphys.models import tiny_llama

F32 = GGMLType.F32


def graph(*tensors: Tensor) -> Graph:
    """The graph that ends in these tensors."""
    g = Graph()
    for tensor in tensors:
        g.expand(tensor)
    return g


def test_in_place() -> None:
    """An elementwise operation writes over its only operand when nobody else reads it."""
    x = ops.new_input(F32, 64)
    y = ops.elementwise("SCALE", ops.elementwise("SCALE", x))

    assert allocate(graph(y)).buffer_bytes == 256


def test_not_in_place_when_read_again() -> None:
    """An operand that is read again later keeps its bytes."""
    x = ops.new_input(F32, 64)
    y = ops.elementwise("SCALE", x)

    assert allocate(graph(ops.elementwise("ADD", y, x))).buffer_bytes == 512


def test_product_needs_a_place_of_its_own() -> None:
    """A matrix product is not in place; its operand's bytes are free once it has run, for what fits into them."""
    x = ops.new_input(F32, 64, 2)  # 512 bytes
    up = ops.mul_mat(ops.weight(F32, 64, 128), x)  # 1024 behind it
    down = ops.mul_mat(ops.weight(F32, 128, 64), up)  # 512: into x's place

    allocation = allocate(graph(down))

    assert allocation.offsets == (None, None, 0, 512, 0)  # two weights, x, up, down
    assert allocation.buffer_bytes == 1536


def test_alignment() -> None:
    """Every tensor takes whole stretches of 32 bytes."""
    x = ops.new_input(F32, 3)
    y = ops.mul_mat(ops.weight(F32, 3, 5), x)

    assert allocate(graph(y)).buffer_bytes == 32 + 32


def test_views_take_nothing() -> None:
    """A view has no bytes of its own and keeps its source alive."""
    x = ops.new_input(F32, 64)
    shown = ops.reshape(x, 8, 8)
    other = ops.mul_mat(ops.weight(F32, 8, 8), shown)
    late = ops.elementwise("ADD", other, shown)
    allocation = allocate(graph(late))

    assert allocation.offsets == (None, 0, None, 256, 256)  # the weight, x, its view, the product, the sum in its place
    assert allocation.buffer_bytes == 512


def test_stretches_of_no_bytes() -> None:
    """What a tensor without elements gives back keeps apart what lies on its sides, as ggml's list does."""
    free = FreeList()
    first, second, third = (free.take(64) for _ in range(3))
    free.give_back(second, 64)
    nothing = free.take(0)
    free.give_back(first, 64)
    both = free.take(128)
    free.give_back(nothing, 0)
    free.give_back(both, 128)
    free.give_back(third, 64)

    assert (first, second, third, nothing, both) == (0, 64, 128, 64, 0)
    assert free.take(256) == 192  # all is free, but the first 192 bytes are not known to touch the open end


def test_outputs_are_kept() -> None:
    """An output is neither overwritten nor given back."""
    x = ops.new_input(F32, 64)
    y = ops.elementwise("SCALE", x)
    y.is_output = True

    assert allocate(graph(ops.elementwise("SCALE", y))).buffer_bytes == 512


def test_order_is_depth_first() -> None:
    """Sources come before what reads them, left before right, each once."""
    a, b = ops.new_input(F32, 8), ops.new_input(F32, 8)
    left, right = ops.elementwise("SCALE", a), ops.elementwise("SCALE", b)
    top = ops.elementwise("ADD", left, right)
    g = graph(top, right)

    assert g.nodes == [left, right, top]
    assert g.leafs == [a, b]


@pytest.mark.parametrize(
    ("ggml_type", "ne", "nbytes"), [(F32, (3, 2), 24), (GGMLType.Q8_0, (64, 2), 136), (GGMLType.F16, (4, 3, 2), 48)]
)
def test_nbytes(ggml_type: GGMLType, ne: tuple[int, ...], nbytes: int) -> None:
    """A dense tensor's bytes are its rows' bytes."""
    assert ops.new_input(ggml_type, *ne).nbytes == nbytes


@pytest.fixture
def llama_graphs(tmp_path: Path) -> tuple[Graph, Graph]:
    """The graph a tiny llama reserves for, and the one of a short prompt with one output."""
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf")) as gguf:
        h = read_hparams(gguf)
        layouts = Layouts(gguf, h, rule_for(h.arch))
        context = resolve(Params(n_ctx=1024), n_ctx_train=h.n_ctx_train)
        reserved = layouts.graph(context, reserved_batches(context)[0])
        short = replace(context, n_ctx_seq=256)
        return reserved, layouts.graph(short, Batch(n_tokens=40, n_seqs=1, n_outputs=1))


def test_layout_never_overlaps(llama_graphs: tuple[Graph, Graph]) -> None:
    """While a node runs, its bytes and those of all that is still to be read are disjoint, in-place parents aside."""
    reserved, _ = llama_graphs
    tensors = (*reserved.leafs, *reserved.nodes)
    offsets = dict(zip(map(id, tensors), allocate(reserved).offsets, strict=True))
    last_read: dict[int, int] = {}
    for step, node in enumerate(reserved.nodes):
        for source in node.src:
            owner = source.view_src or source
            last_read[id(owner)] = step
    alive: dict[int, Tensor] = {id(leaf): leaf for leaf in reserved.leafs if leaf.is_input}
    for step, node in enumerate(reserved.nodes):
        start = offsets[id(node)]
        if start is not None:
            for other in alive.values():
                begin = offsets[id(other)]
                if begin is None or last_read.get(id(other), -1) < step:
                    continue
                in_place = other in node.src and begin == start and last_read[id(other)] == step
                apart = start >= begin + other.nbytes or begin >= start + node.nbytes
                assert in_place or apart, (step, node.op, other.op)
            alive[id(node)] = node


def test_touched(llama_graphs: tuple[Graph, Graph]) -> None:
    """A short prompt touches less than is reserved; the reserved batch itself touches almost all of it."""
    reserved, short = llama_graphs
    plan = allocate(reserved)
    whole, part = (plan.touched_bytes(written_sizes(plan.lifetimes, graph)) for graph in (reserved, short))

    assert 0 < part < whole <= plan.buffer_bytes


def test_work(llama_graphs: tuple[Graph, Graph]) -> None:
    """Scratch memory holds the largest operand converted for F16 weights: n_ff values of each token."""
    reserved, _ = llama_graphs

    assert work_bytes(reserved, 1, repacked=frozenset(), cpu_features=frozenset()) == 512 * 512 * 2
