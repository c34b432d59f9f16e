"""Compute buffers of devices are the same from the few layers that stand for all as from all of them."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggufphys import Device, Params, open_gguf, predict_memory
from ggufphys.errors import UnsupportedError
from ggufphys.gguf.names import split_name
from ggufphys.graph.allocating import layout
from ggufphys.graph.batch import reserved_batches
from ggufphys.graph.devices import divided
from ggufphys.graph.devices.runs import Runs
from ggufphys.memory.predict import Predictor
from ggufphys.synth.catalogue import shape_named
from ggufphys.synth.plan import plan_file
from tests.ggufphys.models import shape_header
from tests.load_models import own_drafts

DEVICES = tuple(Device(name=f"RPC{i}[10.0.0.1:50052]", memory_bytes=n << 30) for i, n in enumerate((24, 8, 8)))
ONE, ALL = Params(n_ctx=2048, devices=DEVICES[:1]), Params(n_ctx=2048, devices=DEVICES)
CUDA = Params(
    n_ctx=2048, devices=(Device(name="CUDA0", memory_bytes=8 << 30), Device(name="CUDA1", memory_bytes=8 << 30))
)
GRID = [
    replace(CUDA, n_gpu_layers=4, n_outputs_max=1, tensor_split=(3.0, 1.0)),  # weights of the host are fetched
    replace(CUDA, n_cpu_moe=20),
    ONE,
    ALL,
    replace(ONE, n_gpu_layers=9),
    replace(ALL, n_gpu_layers=20, flash_attn="off"),
    replace(ALL, tensor_split=(1.0, 2.0, 3.0), n_seq_max=4),
    replace(ALL, offload_kqv=False),
    replace(ONE, n_cpu_moe=7),
    replace(ALL, n_cpu_moe=20, override_tensor=((r"blk\.1.\.ffn", "CPU"),)),
    replace(ALL, override_tensor=((r"blk\..\.attn", DEVICES[2].name), ("output", "CPU"))),
]


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gemma-3-4b", "mixtral-8x7b", "gpt-oss-20b", "deepseek-v2-lite"])
def test_few_layers_stand_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Leaving layers out changes no device's buffer."""
    plan = plan_file(replace(shape_named(name), n_vocab=1000), "Q4_K_M")
    path = tmp_path / "model.gguf"
    path.write_bytes(plan.header)
    os.truncate(path, plan.file_bytes)
    with open_gguf(path) as gguf:
        few = [predict_memory(gguf, params).devices for params in GRID]
        monkeypatch.setattr(divided, "ATTEMPTS", ())
        assert few == [predict_memory(gguf, params).devices for params in GRID]


RUNS = st.fixed_dictionaries(
    {
        "n_ctx": st.sampled_from([300, 2048, 8192, 32768]),
        "n_ubatch": st.sampled_from([512, 16, 2048]),
        "n_seq_max": st.sampled_from([1, 2, 4]),
        "n_outputs_max": st.sampled_from([0, 16]),
        "n_gpu_layers": st.integers(-1, 40),
        "n_cpu_moe": st.sampled_from([0, 0, 5]),
        "swa_full": st.booleans(),
        "kv_unified": st.booleans(),
        "offload_kqv": st.booleans(),
        "no_alloc": st.booleans(),
        "flash_attn": st.sampled_from(["auto", "on", "off"]),
        "override_tensor": st.sampled_from(
            [(), ((r"blk\.1.\.ffn", "CPU"),), (("attn_k", "CPU"),), (("output", "CPU"),)]
        ),
        "devices": st.sampled_from(
            [
                (),
                (Device(name="CUDA0", memory_bytes=24 << 30),),
                (Device(name="CUDA0", memory_bytes=24 << 30), Device(name="CUDA1", memory_bytes=8 << 30)),
                (DEVICES[0],),
                DEVICES,
            ]
        ),
    }
)
SHAPES = st.sampled_from(
    [
        "llama-3.1-8b",
        "gemma-3-4b",
        "gemma-2-9b",
        "gpt-oss-20b",
        "deepseek-v2-lite",
        "qwen3-30b-a3b",
        "mamba2-2.7b",
        "qwen3-next-80b-a3b",
    ]
)


def assert_few_stand_for_all(folder: Path, shape: str, run: dict[str, Any]) -> None:
    """Predict twice, once with all layers built."""
    with pytest.MonkeyPatch.context() as patch, open_gguf(shape_header(folder / "model.gguf", shape)) as gguf:
        few = predict_memory(gguf, Params(**run)).devices
        patch.setattr(divided, "ATTEMPTS", ())
        patch.setattr(layout, "ATTEMPTS", ())
        assert few == predict_memory(gguf, Params(**run)).devices


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, run=RUNS)
def test_random_runs(tmp_path: Path, shape: str, run: dict[str, Any]) -> None:
    """The same however a published shape is run, on the host and on up to three devices."""
    assert_few_stand_for_all(tmp_path, shape, run)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, run=RUNS)
def test_many_random_runs(tmp_path: Path, shape: str, run: dict[str, Any]) -> None:
    """The same of many more."""
    assert_few_stand_for_all(tmp_path, shape, run)


def test_a_window_model_partly_offloaded(tmp_path: Path) -> None:
    """Where the host's weights are fetched and differ in type from layer to layer, no layer stands for too many."""
    run = {"n_ctx": 8192, "n_gpu_layers": 20, "swa_full": True, "n_outputs_max": 16, "devices": CUDA.devices[:1]}
    assert_few_stand_for_all(tmp_path, "gemma-3-4b", run)


def test_masks_that_are_cast_leave_layers_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a later layer is the first to make what all of its kind read, few layers stand for all nevertheless."""
    params = Params(n_ctx=8192, llama_build=9309)
    with open_gguf(shape_header(tmp_path / "model.gguf", "gemma-3-4b")) as gguf:
        predictor = Predictor(gguf)
        few = predictor.predict(params).compute_bytes
        layouts, context = predictor.layouts_of(params), predictor.context(params)
        layers = layouts.layout(context, reserved_batches(context)[0]).layers
        monkeypatch.setattr(layout, "ATTEMPTS", ())

        assert layers is not None
        assert len(layers.kinds) - len(layers.built) > 10
        assert Predictor(gguf).predict(params).compute_bytes == few


def test_experts_are_read_by_their_numbers_alone(tmp_path: Path) -> None:
    """In no recorded model's graph another operation than `MUL_MAT_ID` reads what `divided.EXPERTS` names."""
    readers = set()
    for draft in own_drafts():
        draft.write(tmp_path / "m.gguf")
        with open_gguf(tmp_path / "m.gguf") as gguf, suppress(UnsupportedError):  # a draft beside its target alone
            runs = Runs(gguf)
            params = Params(n_ctx=512, n_ubatch=1, flash_attn="auto" if runs.rule.flash_attn else "off")
            context = runs.context(params)
            graph = runs.layouts.graph(context, reserved_batches(context)[0])
            readers |= {n.op for n in graph.nodes for s in n.src if split_name(s.name)[1] in divided.EXPERTS}
    assert readers == {"MUL_MAT_ID"}


def test_the_load_mode_divides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are divided alike whether they are mapped or read: no graph is built anew, and bytes are right."""
    with open_gguf(shape_header(tmp_path / "model.gguf", "qwen3-30b-a3b")) as gguf:
        predictor = Predictor(gguf)
        predictor.predict(replace(CUDA, n_cpu_moe=20))
        read = replace(CUDA, n_cpu_moe=20, use_mmap=False)
        anew = predict_memory(gguf, read)
        monkeypatch.setattr(layout.Layouts, "graph", None)
        assert predictor.predict(read) == anew
