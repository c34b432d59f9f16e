"""What lies on each device equals llama.cpp's own figures, with RPC workers on loopback as devices."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ggufphys import MemoryPrediction, Params, open_gguf, predict_memory
from ggufphys.params import HOST, Device, rpc_device
from ggufphys.synth.catalogue import shape_named
from ggufphys.synth.plan import plan_file
from tests import archs, oracle
from tests.rpc_worker import workers

BASE = Params(n_ctx=1024, use_extra_bufts=False, use_mmap=False)  # what the oracle simulates
N_LAYER = 7  # one more than gemma3's period of windows
N_VOCAB = 600  # reading a real vocabulary for every way of loading would take most of the time
EXPERTS = r"ffn_.*_exps"
# tied and rope factors, untied, windows and tied, windows and experts, experts
SHAPES = ("llama-3.1-8b", "mistral-7b", "gemma-3-4b", "gpt-oss-20b", "mixtral-8x7b", "llama-110m")
# experts; compressed keys; delta nets and experts with a shared one; states and nothing else
MORE_SHAPES = ("qwen3-30b-a3b", "deepseek-v2-lite", "qwen3-next-80b-a3b", "mamba2-2.7b")


@pytest.fixture(scope="module")
def devices() -> Iterator[tuple[Device, ...]]:
    """Two workers, with as much memory as each other."""
    import llama_cpp

    if not llama_cpp.llama_supports_rpc():
        pytest.skip("llama-cpp-python is built without RPC (CMAKE_ARGS=-DGGML_RPC=ON)")
    with workers(2) as endpoints:
        yield tuple(rpc_device(endpoint, 1 << 30) for endpoint in endpoints)


def sparse(tmp_path: Path, name: str, *, n_vocab: int = N_VOCAB) -> Path:
    """The first layers of a catalogue shape with a small vocabulary, and a hole for weights."""
    plan = plan_file(replace(shape_named(name).cut(N_LAYER), n_vocab=n_vocab), "Q4_K_M")
    path = tmp_path / f"{name}.gguf"
    path.write_bytes(plan.header)
    os.truncate(path, plan.file_bytes)
    return path


def predict(path: Path, params: Params) -> MemoryPrediction:
    with open_gguf(path) as gguf:
        return predict_memory(gguf, params)


def by_device(truth: dict[str, Any], devices: Sequence[Device], quantities: Sequence[str]) -> dict[str, list[int]]:
    """llama.cpp's bytes of each device: what is no device's buffer is the host's."""
    sums = {name: [0] * len(quantities) for name in (HOST, *(d.name for d in devices))}
    for buffer, sizes in truth["by_buffer"].items():
        row = sums[buffer if buffer in sums else HOST]
        row[:] = [a + sizes[q] for a, q in zip(row, quantities, strict=True)]
    return sums


def check(path: Path, grid: Sequence[Params], quantities: Sequence[str], *, no_alloc: bool = True) -> None:
    for params, truth in zip(grid, oracle.ask(path, grid, no_alloc=no_alloc), strict=True):
        predicted = predict(path, replace(params, no_alloc=no_alloc))
        rows = {d.name: [getattr(d, f"{q}_bytes") for q in quantities] for d in predicted.devices}

        assert rows == by_device(truth, params.devices, quantities), params


def grid_of(devices: tuple[Device, ...]) -> list[Params]:
    one, two = replace(BASE, devices=devices[:1]), replace(BASE, devices=devices)
    first, second = (d.name for d in devices)
    return [
        *(replace(p, n_gpu_layers=n) for p, n in product((one, two), (0, 1, N_LAYER, N_LAYER + 1, 99))),
        *(
            replace(two, tensor_split=split, n_gpu_layers=n)
            for split, n in product(((3.0, 1.0), (1.0, 1.0), (0.0, 1.0), (2.0,), (0.0, 0.0)), (5, -1))
        ),
        *(replace(two, split_mode="none", main_gpu=n) for n in (0, 1, -1)),
        replace(two, offload_kqv=False),
        replace(two, offload_kqv=False, n_gpu_layers=3, flash_attn="off"),
        replace(two, n_cpu_moe=3),
        replace(two, n_cpu_moe=99, override_tensor=((r"blk\.1\.ffn_up", first),)),
        replace(two, override_tensor=((EXPERTS, "CPU"),)),
        replace(two, override_tensor=((r"blk\.[0-2]\.", "CPU"), (r"blk\.2\.attn", second))),
        replace(two, override_tensor=(("token_embd|rope_freqs", second),)),
        replace(two, override_tensor=(("output", "CPU"),), n_gpu_layers=2),
        # attention where its layer is not: llama.cpp turns flash attention off
        replace(one, override_tensor=(("attn_output", first),), n_gpu_layers=0),
        replace(two, n_seq_max=4, n_ctx=4096, swa_full=True, n_outputs_max=4),
        replace(two, flash_attn="off", n_gpu_layers=4),
        replace(two, type_k="q8_0", type_v="q8_0", flash_attn="on", kv_unified=True, n_seq_max=2),
    ]


@pytest.mark.parametrize("name", [*SHAPES, *MORE_SHAPES])
def test_each_device(tmp_path: Path, devices: tuple[Device, ...], name: str) -> None:
    """Weights, caches and compute buffers are as llama.cpp reckons them, byte for byte, over one and two devices."""
    check(sparse(tmp_path, name), grid_of(devices), ("model", "context", "compute"))


def test_mapped_and_repacked_weights_beside_devices(tmp_path: Path, devices: tuple[Device, ...]) -> None:
    """What stays on the host is mapped and repacked as without devices; what leaves it shortens the mapped stretch."""
    path = sparse(tmp_path, "llama-110m")
    grid = [
        replace(BASE, n_ctx=256, devices=devices, n_gpu_layers=n, use_mmap=mmap, use_extra_bufts=extra)
        for n, mmap, extra in product((0, 3, 99), (True, False), (True, False))
    ]
    grid.append(replace(grid[0], n_gpu_layers=-1, override_tensor=((r"blk\.[35]\.ffn", "CPU"),), use_extra_bufts=True))
    check(path, grid, ("model", "context"), no_alloc=False)


def test_compute_buffers_really_allocated(tmp_path: Path, devices: tuple[Device, ...]) -> None:
    """A llama's compute buffers come out to the byte where llama.cpp really allocates them."""
    two = replace(BASE, n_ctx=4096, devices=devices)
    grid = [
        replace(two, n_gpu_layers=0),
        replace(two, devices=devices[:1]),
        replace(two, n_gpu_layers=3),
        two,
        replace(two, tensor_split=(3.0, 1.0), n_outputs_max=4),
        replace(two, offload_kqv=False),
        replace(two, offload_kqv=False, flash_attn="off", n_gpu_layers=3),
        replace(two, override_tensor=((r"blk\.[0-2]\.", "CPU"),)),
        replace(two, n_seq_max=4, type_k="q8_0", type_v="q8_0", flash_attn="on"),
        replace(two, n_ubatch=16, n_gpu_layers=4),
    ]
    check(sparse(tmp_path, "llama-110m", n_vocab=8000), grid, ("compute",), no_alloc=False)


@pytest.mark.parametrize(
    "name",
    [
        "gemma3/period",
        "gemma3n",
        "qwen3moe",
        "deepseek2",
        "deepseek32",
        "qwen3next",
        "plamo2",
        "kimi-linear",
        "deepseek4",
        "glm5-next",
        "hy_v4",
        "dots3note",
        "minimax-m3",
        "qwen4exp",
        "qwen4exp/ratios",
        "kimi-k3",
        "nanbeige",
        "graniteswitch",
    ],
)
def test_tiny_models_really_allocated(tmp_path: Path, devices: tuple[Device, ...], name: str) -> None:
    """So do other architectures' compute buffers, pinned operations and pipelines included."""
    path = tmp_path / "model.gguf"
    archs.write(path, name, archs.records()[name].tensors)
    two = replace(BASE, n_ctx=2048, devices=devices)
    grid = [
        replace(two, devices=devices[:1]),
        replace(two, devices=devices[:1], n_gpu_layers=1),
        two,
        replace(two, n_gpu_layers=2, n_outputs_max=1),
        replace(two, offload_kqv=False),
        replace(two, offload_kqv=False, flash_attn="off", n_gpu_layers=2),
        replace(two, override_tensor=((EXPERTS, "CPU"), (r"ffn_(up|gate|down)\.", "CPU"))),
        replace(two, n_seq_max=4, kv_unified=True),
    ]
    check(path, grid, ("context", "compute"), no_alloc=False)


@pytest.mark.parametrize("name", ["deepseek4", "glm5-next"])
def test_hyper_connections_elsewhere(tmp_path: Path, devices: tuple[Device, ...], name: str) -> None:
    """Where hyper-connections would run on another device than their layer, simpler operations stand for them."""
    path = tmp_path / "model.gguf"
    archs.write(path, name, archs.records()[name].tensors)
    two = replace(BASE, n_ctx=2048, devices=devices)
    grid = [replace(two, override_tensor=(("hc_", "CPU"),)), replace(two, devices=devices[:1], n_gpu_layers=2)]
    check(path, grid, ("context", "compute"), no_alloc=False)


def test_hyper_connections_of_a_head(tmp_path: Path, devices: tuple[Device, ...]) -> None:
    """So do they in a prediction head on the host, whose last one comes in front of the device's output."""
    path = tmp_path / "model.gguf"
    archs.write(path, "deepseek4/head", archs.records()["deepseek4/head"].tensors)
    head = replace(BASE, n_ctx=2048, devices=devices[:1], load_mtp=True, ctx_type="mtp")
    check(path, [replace(head, n_gpu_layers=n) for n in (1, 2)], ("context", "compute"), no_alloc=False)


def test_layers_are_divided_by_free_memory(tmp_path: Path, devices: tuple[Device, ...]) -> None:
    """Without a tensor split the devices' memory divides the layers; unknown memory is taken as equal, and said."""
    path = sparse(tmp_path, "llama-110m")
    three_to_one = tuple(replace(d, memory_bytes=n << 30) for d, n in zip(devices, (3, 1), strict=True))
    unknown = tuple(replace(d, memory_bytes=0) for d in devices)
    predicted = predict(path, replace(BASE, devices=three_to_one))
    split = predict(path, replace(BASE, devices=three_to_one, tensor_split=(3.0, 1.0)))
    equal = predict(path, replace(BASE, devices=unknown))

    assert [d.model_bytes for d in predicted.devices] == [d.model_bytes for d in split.devices]
    assert [d.memory_bytes for d in predicted.devices] == [None, 3 << 30, 1 << 30]
    assert [d.total_bytes for d in equal.devices] == [
        d.total_bytes for d in predict(path, replace(BASE, devices=devices)).devices
    ]
    assert "equal shares assumed" in equal.notes[0]
    with pytest.raises(ValueError, match=r"how much memory RPC0\[.*\] has decides"):
        predict(path, replace(BASE, devices=(devices[0], unknown[1])))


def test_flash_attention_is_turned_off(tmp_path: Path, devices: tuple[Device, ...]) -> None:
    """Attention that would run where its layer is not turns flash attention off, and the prediction says so."""
    path = sparse(tmp_path, "llama-110m")
    params = replace(BASE, devices=devices, n_gpu_layers=0, override_tensor=(("attn_output", devices[0].name),))
    auto, on = (predict(path, replace(params, flash_attn=kind)) for kind in ("auto", "on"))

    assert (auto.context.flash_attn, auto.context.v_trans) == (False, False)
    assert any("turn flash attention off" in note for note in auto.notes)
    assert on.context.flash_attn
    assert not any("turn flash attention off" in note for note in on.notes)
    quantized = predict(path, replace(params, type_v="q8_0"))  # values of a quantized type turn it on before that
    assert quantized.context.flash_attn
    assert not any("turn flash attention off" in note for note in quantized.notes)
