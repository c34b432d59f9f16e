"""The few layers that are built stand for all: the same buffer, the same touched bytes, the same scratch memory."""

import ast
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggufphys import GGUFFile, Params, open_gguf
from ggufphys.arch import RULES, read_hparams, rule_for
from ggufphys.context import resolve
from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import WriteValue, encode_header
from ggufphys.graph import models, ops
from ggufphys.graph.allocating.alloc import allocate, written_sizes
from ggufphys.graph.allocating.layers import course_of_all, expands_in_time, leave_out
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.allocating.lifetimes import lifetimes
from ggufphys.graph.allocating.work import work_bytes
from ggufphys.graph.batch import Batch, reserved_batches
from ggufphys.graph.ir import Graph
from ggufphys.synth.catalogue import shape_named, shapes
from ggufphys.synth.plan import plan_file
from tests import archs
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model

CONFIGURATIONS = [
    Params(n_ctx=4096),
    Params(n_ctx=4096, flash_attn="off", n_ubatch=128),
    Params(n_ctx=8192, n_seq_max=4),
    Params(n_ctx=8192, n_seq_max=4, kv_unified=True, swa_full=True),
    Params(n_ctx=2048, type_k="q8_0", type_v="q8_0", n_outputs_max=1),
    Params(n_ctx=300, n_batch=64),
]


@pytest.mark.parametrize(
    ("kinds", "built"),
    [
        ("FmmmmmmmmL", [0, 1, 2, 8, 9]),
        ("FmmL", [0, 1, 2, 3]),
        ("FwwwwgwwwwwgwwwwwgwwwL", [0, 1, 2, 5, 6, 17, 18, 19, 20, 21]),
        ("FdmmmmmmmmL", [0, 1, 2, 3, 9, 10]),
        ("FdddddmmmmmmmL", [0, 1, 2, 5, 6, 7, 12, 13]),
        ("abcdefgh", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("F", [0]),
        ("FL", [0, 1]),
    ],
)
def test_what_is_built(kinds: str, built: list[int]) -> None:
    """Of what repeats, the first and the last occurrence of each step between kinds is built."""
    assert list(leave_out([ord(kind) for kind in kinds], 1).built) == built


@given(kinds=st.lists(st.integers(0, 3), min_size=1, max_size=40), n_before=st.integers(1, 3))
def test_steps_are_real(kinds: list[int], n_before: int) -> None:
    """At every seam the built layers follow each other as they do in the model, and no step is lost."""
    kinds = [-1, *kinds, -2]  # the first and the last layer are always kinds of their own
    layers = leave_out(kinds, n_before)
    short = [kinds[il] for il in layers.built]

    def steps(sequence: list[int]) -> set[tuple[int, ...]]:
        return {tuple(sequence[max(0, i - n_before) : i + 1]) for i in range(len(sequence))}

    assert steps(short) == steps(kinds)


def open_shape(folder: Path, name: str) -> GGUFFile:
    """A catalogue shape in a type whose mix varies from layer to layer."""
    plan = plan_file(shape_named(name), "Q4_K_M")
    path = folder / f"{name}.gguf"
    path.write_bytes(plan.header)
    os.truncate(path, plan.file_bytes)
    return open_gguf(path)


def assert_stands_for_all(gguf: GGUFFile, params: Params) -> tuple[int, ...] | None:
    """Compare with the graph of all layers; gives the layers that were built."""
    h = read_hparams(gguf)
    layouts = Layouts(gguf, h, rule_for(h.arch))
    context = resolve(params, n_ctx_train=h.n_ctx_train, flash_attn_possible=rule_for(h.arch).flash_attn)
    small = Batch(n_tokens=min(32, context.n_ubatch), n_seqs=1, n_outputs=1)
    built = None
    for batch in reserved_batches(context):
        layout, whole = layouts.layout(context, batch), layouts.graph(context, batch)
        allocation = allocate(whole)
        layers = None if layout.layers is None else layout.layers.built
        repacked = frozenset(t.name for t in gguf.tensors[::3])

        assert layout.allocation.buffer_bytes == allocation.buffer_bytes
        assert work_bytes(
            layout.traced.graph,
            2,
            repacked=repacked,
            cpu_features=frozenset({"avx2"}),
            forms=layouts.forms,
            point=layout.point,
        ) == work_bytes(whole, 2, repacked=repacked, cpu_features=frozenset({"avx2"}))
        if context.n_seq_max == 1 and batch.n_tokens >= small.n_tokens:
            of_some, of_all = (
                plan.touched_bytes(written_sizes(plan.lifetimes, layouts.graph(context, small, built)))
                for plan, built in ((layout.allocation, layers), (allocation, None))
            )
            assert of_some == of_all
        built = layers
    return built


@pytest.mark.parametrize("name", [name for name, shape in shapes().items() if shape.architecture in RULES])
def test_real_shapes(tmp_path: Path, name: str) -> None:
    """Every shape of the catalogue is read off a part of its layers, with the whole graph's result."""
    with open_shape(tmp_path, name) as gguf:
        for params in CONFIGURATIONS:
            built = assert_stands_for_all(gguf, params)

            assert built is not None
            assert len(built) < shape_named(name).n_layer


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_patterns(data: st.DataObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random windows, head counts and feed-forward layers give the whole graph's result, in the generic graph."""
    monkeypatch.setattr(models, "MODELS", {})
    n_layer = data.draw(st.integers(1, 24))
    period = data.draw(st.integers(1, 6))
    heads = data.draw(st.lists(st.sampled_from([1, 2, 4]), min_size=period, max_size=period))
    windows = data.draw(st.lists(st.booleans(), min_size=period, max_size=period))
    cut = data.draw(st.integers(0, n_layer))  # from here on another pattern
    metadata = llama_metadata(
        "gemma3",
        block_count=n_layer,
        attention__head_count_kv=[heads[il % period] if il < cut else 2 for il in range(n_layer)],
        attention__sliding_window=512 if any(windows[:n_layer]) else 0,
        attention__sliding_window_pattern=[windows[il % period] for il in range(n_layer)],
    )
    dense = data.draw(st.integers(0, n_layer))
    tensors = [
        t for t in llama_tensors(n_layer=n_layer) if "ffn_gate" not in t.name or int(t.name.split(".")[1]) < dense
    ]
    with open_gguf(write_model(tmp_path / "random.gguf", metadata, tensors)) as gguf:
        assert_stands_for_all(gguf, data.draw(st.sampled_from(CONFIGURATIONS)))


@pytest.mark.parametrize("name", ["nanbeige", "hrm_text"])
def test_layers_that_run_again(tmp_path: Path, name: str) -> None:
    """Runs through layers that share weights, of several types, are read off a part of them too."""
    n = 24  # layers with weights: two stacks of half as many in hrm_text
    changes: dict[str, dict[str, WriteValue]] = {
        "nanbeige": {"nanbeige.block_count": n},
        "hrm_text": {"hrm_text.block_count": 3 * n, "hrm_text.hrm.layers_per_stack": n // 2},
    }
    layer = {t.name.removeprefix("blk.0."): t for t in archs.records()[name].tensors if t.name.startswith("blk.0.")}
    tensors = [t for t in archs.records()[name].tensors if not t.name.startswith("blk.")]
    for il in range(n):
        odd = GGMLType.Q8_0 if il == 5 else GGMLType.F16
        tensors += [replace(t, name=f"blk.{il}.{stem}", ggml_type=odd if t.ne[1:] else t.ggml_type)
                    for stem, t in layer.items()]  # fmt: skip
    path = tmp_path / "model.gguf"
    path.write_bytes(encode_header({**archs.models()[name].metadata, **changes[name]}, tensors))
    with open_gguf(path) as gguf:
        for params in CONFIGURATIONS:
            built = assert_stands_for_all(gguf, params)

            assert built is not None
            assert len(built) < 3 * n


@pytest.mark.parametrize("name", ["chameleon", "deepseek32", "glm-dsa/long", "kimi-k3/checkpoints", "gemma3n"])
def test_deep_models_of_every_kind(tmp_path: Path, name: str) -> None:
    """Layers with constants of their own, and such as look back at others, stand for others too."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.deepened(name, 24))
    with open_gguf(path) as gguf:
        for params in CONFIGURATIONS[:3]:
            assert_stands_for_all(gguf, params)


def layered(*, leaks: bool = False, lazy: bool = False) -> Graph:
    """Five layers that add a product to the stream; leaking ones keep it, lazy ones add no node until the end."""
    graph = Graph()
    x = ops.new_input(ops.F32, 64)
    for _ in range(5):
        graph.marks.append(len(graph.nodes))
        x = ops.elementwise("ADD", x, ops.mul_mat(ops.weight(ops.F32, 64, 64), x))
        x.is_output = leaks
        if not lazy:
            graph.expand(x)
    graph.expand(x)
    return graph


@pytest.mark.parametrize(
    ("graph", "expected"), [(layered(), True), (layered(leaks=True), False), (layered(lazy=True), False)]
)
def test_what_does_not_repeat_is_noticed(graph: Graph, expected: bool) -> None:
    """Layers that keep bytes, and layers whose nodes come late, do not stand for others."""
    layers = leave_out([0, *[1] * 8, 2], 1)

    assert len(layers.built) == len(graph.marks)
    known = course_of_all(layers, lifetimes(graph)) is not None
    assert (known and expands_in_time(layers, graph.marks)) is expected


def test_models_use_layer_numbers_as_indices_only() -> None:
    """A model file may pass `il` on, index with it, name weights by it; nothing else would show in a layer's kind."""
    for path in Path(models.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == "il" and isinstance(node.ctx, ast.Load):
                allowed = ast.Call | ast.Subscript | ast.FormattedValue
                assert isinstance(parents[node], allowed), f"{path.name}:{node.lineno}"
