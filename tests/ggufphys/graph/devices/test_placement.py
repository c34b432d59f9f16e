"""Rules of placement that no device here can be asked about: other backends, refusals, names."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys import Device, Params, UnsupportedError, open_gguf, predict_memory
from ggufphys.arch.roles import Role, role_of, rope_layers
from ggufphys.gguf import GGMLType
from ggufphys.graph.devices.backends import backend_of
from ggufphys.graph.devices.placement import place_layers, used_devices
from ggufphys.memory.predict import predict_weights
from ggufphys.params import HOST
from ggufphys.synth.catalogue import shape_named
from ggufphys.synth.plan import plan_file
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model

CUDA = (Device(name="CUDA0", memory_bytes=24 << 30), Device(name="CUDA1", memory_bytes=8 << 30))


def full_size(tmp_path: Path, name: str) -> Path:
    """A catalogue shape as llama-quantize's Q4_K_M, weights left out."""
    plan = plan_file(shape_named(name), "Q4_K_M")
    path = tmp_path / f"{name}.gguf"
    path.write_bytes(plan.header)
    os.truncate(path, plan.file_bytes)
    return path


def buffers(path: Path, params: Params) -> dict[str, int]:
    """Bytes of weights by llama.cpp's buffer names."""
    with open_gguf(path) as gguf:
        terms = predict_weights(gguf, params)
    return {term.buffer: term.nbytes for term in terms}


@pytest.mark.parametrize(
    ("params", "published"),
    [
        (Params(devices=CUDA[:1]), {"CPU_Mapped": 281.81, "CUDA0": 4403.49}),
        (Params(devices=CUDA[:1], use_mmap=False), {"CUDA_Host": 281.81, "CUDA0": 4403.49}),
        (Params(devices=(Device(name="Vulkan0"),)), {"CPU_Mapped": 281.81, "Vulkan0": 4403.49}),
    ],
)
def test_logs_of_cuda_builds(tmp_path: Path, params: Params, published: dict[str, float]) -> None:
    """Llama 3.1 8B Q4_K_M on a GPU: the figures of llama.cpp logs that people have published, to their 0.01 MiB."""
    found = buffers(full_size(tmp_path, "llama-3.1-8b"), params)

    assert published == {name: round(nbytes / (1 << 20), 2) for name, nbytes in found.items()}


def test_pinned_memory_and_repacking(tmp_path: Path) -> None:
    """Beside a CUDA device weights on the host are pinned or mapped, never repacked, unless --no-host says so."""
    path = full_size(tmp_path, "llama-110m")
    cuda = Params(devices=CUDA[:1], n_gpu_layers=3)

    assert {"CPU_Mapped", "CUDA0"} == set(buffers(path, cuda))
    assert {"CUDA_Host", "CUDA0"} == set(buffers(path, replace(cuda, use_mmap=False)))
    assert {"CPU_Mapped", "CPU_REPACK", "CUDA0"} >= set(buffers(path, replace(cuda, no_host=True)))
    assert "CUDA_Host" not in buffers(path, replace(cuda, no_host=True, use_mmap=False))


def test_types_a_backend_does_not_multiply(tmp_path: Path) -> None:
    """CUDA leaves ternary weights to the CPU; an override puts them there all the same."""
    path = write_model(tmp_path / "ternary.gguf", llama_metadata(), llama_tensors(GGMLType.TQ2_0))
    everything = {"CPU_Mapped", "CUDA0"}
    found = buffers(path, Params(devices=CUDA[:1]))
    overridden = buffers(path, Params(devices=CUDA[:1], override_tensor=((".", "CUDA0"),)))

    assert everything == set(found)
    assert found["CUDA0"] == 5 * 1024  # the norms
    assert {"CUDA0"} == set(overridden)


def test_metal_maps_the_file(tmp_path: Path) -> None:
    """Metal's weights are a stretch of the mapped file, and copies of their own without mmap."""
    path = tiny_llama(tmp_path / "tiny.gguf")
    metal = Params(devices=(Device(name="MTL0"),))

    assert {"CPU_Mapped", "MTL0_Mapped"} == set(buffers(path, metal))
    assert {"CPU", "MTL0"} == set(buffers(path, replace(metal, use_mmap=False)))


@pytest.mark.parametrize(
    ("device", "ggml_type", "ne0", "nbytes", "expected"),
    [
        ("CUDA0", GGMLType.Q8_0, 896, 952, 1152),  # 128 more elements are 136 B, then up to 128
        ("CUDA0", GGMLType.Q8_0, 1024, 1088, 1152),
        ("CUDA1", GGMLType.F16, 896, 1792, 1792),
        ("ROCm0", GGMLType.Q4_K, 256, 144, 384),
        ("RPC0[10.0.0.1:50052]", GGMLType.Q8_0, 896, 952, 960),
        ("MTL0", GGMLType.Q8_0, 896, 952, 960),
        ("Vulkan3", GGMLType.Q8_0, 896, 952, 960),
        ("SYCL0", GGMLType.Q8_0, 896, 952, 1152),
        ("NPU7", GGMLType.Q8_0, 896, 952, 960),
        ("CUDA0", 99, 896, 952, 1024),
    ],
)
def test_rounding(device: str, ggml_type: GGMLType | int, ne0: int, nbytes: int, expected: int) -> None:
    """Each backend's alignment, and the last row of quantised tensors filled up where CUDA does so."""
    assert backend_of(device).tensor_bytes(nbytes, ggml_type, ne0) == expected


def test_layers_and_output() -> None:
    """Offloading starts at the output; with one layer too few it is the first layer that stays."""
    for n_gpu_layers, on_host, output in ((0, 4, HOST), (1, 4, "CUDA0"), (3, 2, "CUDA0"), (4, 1, "CUDA0"), (5, 0, "")):
        placement = place_layers(Params(devices=CUDA[:1], n_gpu_layers=n_gpu_layers), 4)

        assert placement.layers.count(HOST) == on_host
        assert output in ("", placement.output)


def test_shares_are_32_bit_floats() -> None:
    """A layer that lies exactly on a border goes to the next device, and borders round as llama.cpp's floats do."""
    split = place_layers(Params(devices=CUDA, tensor_split=(1.0, 1.0)), 3)
    thirds = place_layers(Params(devices=CUDA, tensor_split=(0.1, 0.2)), 2)

    assert split.layers == ("CUDA0", "CUDA0", "CUDA1")
    assert split.output == "CUDA1"
    assert thirds.layers == ("CUDA0", "CUDA1")


def test_one_device_alone() -> None:
    """Split mode none uses the main device only, and none when it is negative."""
    assert [d.name for d in used_devices(Params(devices=CUDA, split_mode="none", main_gpu=1))] == ["CUDA1"]
    assert used_devices(Params(devices=CUDA, split_mode="none", main_gpu=-1)) == ()


def test_split_modes_without_a_rule(tmp_path: Path) -> None:
    """Split mode row is refused where llama.cpp refuses it; what it could do, and tensor, has no rule here."""
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf")) as gguf:
        with pytest.raises(ValueError, match="device CUDA0 does not support split buffers"):
            predict_memory(gguf, Params(devices=CUDA, split_mode="row"))
        with pytest.raises(UnsupportedError, match="split_mode row on SYCL0"):
            predict_memory(gguf, Params(devices=(Device(name="SYCL0"),), split_mode="row"))
        with pytest.raises(UnsupportedError, match="split_mode tensor"):
            predict_memory(gguf, Params(devices=CUDA, split_mode="tensor"))
        assert predict_memory(gguf, Params(split_mode="row")).devices[0].name == HOST


@pytest.mark.parametrize(
    ("arch", "name", "role"),
    [
        ("llama", "blk.11.ffn_up.weight", 11),
        ("t5", "dec.blk.3.attn_q.weight", 3),
        ("llama", "token_embd.weight", Role.INPUT),
        ("llama", "output.weight", Role.OUTPUT),
        ("llama", "output_norm.bias", Role.OUTPUT),
        ("llama", "rope_freqs.weight", Role.ROPE),
        ("bert", "token_embd_norm.weight", 0),
        ("lfm2", "token_embd_norm.weight", Role.OUTPUT),
        ("gemma3n", "per_layer_model_proj.weight", 0),
        ("wavtokenizer-dec", "convnext.2.dw.weight", 2),
    ],
)
def test_roles(arch: str, name: str, role: Role | int) -> None:
    """A tensor's name tells its layer; what belongs to none is looked up, output, or the first layer's."""
    assert role_of(arch, name) == role


def test_rotary_factors_of_layers_without_a_window(tmp_path: Path) -> None:
    """gemma4 loads rotary factors for its full layers alone."""
    metadata = llama_metadata("gemma4", attention__sliding_window_pattern=[True, False])
    path = write_model(tmp_path / "g4.gguf", metadata, llama_tensors())
    with open_gguf(path) as gguf:
        assert rope_layers(gguf) == (1,)
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf")) as gguf:
        assert rope_layers(gguf) == (0, 1)


def test_notes(tmp_path: Path) -> None:
    """The prediction says when layers have nowhere to go, and which figures no test has compared."""
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf")) as gguf:
        nowhere = predict_memory(gguf, Params(n_gpu_layers=99))
        cuda = predict_memory(gguf, Params(devices=CUDA[:1]))

    assert "no device to offload 99 layers to" in nowhere.notes[0]
    assert nowhere.basis["model"] == "exact"
    assert "sizes on CUDA0 follow the backend's source" in cuda.notes[0]
    assert cuda.basis["model"] == "estimate"


def test_a_pattern_to_a_device_that_is_not_used(tmp_path: Path) -> None:
    """With split_mode none the other devices are nobody's: llama.cpp ends itself over a weight that lies there."""
    path = write_model(tmp_path / "m.gguf", llama_metadata(), llama_tensors(GGMLType.Q4_K))
    devices = (Device(name="CUDA0", memory_bytes=8 << 30), Device(name="CUDA1", memory_bytes=8 << 30))
    params = Params(devices=devices, split_mode="none", main_gpu=1, override_tensor=(("ffn_up", "CUDA0"),))
    with open_gguf(path) as gguf, pytest.raises(ValueError, match="ffn_up.weight on CUDA0, which split_mode none"):
        predict_memory(gguf, params)
