"""Compute buffers of devices are the same from the few layers that stand for all as from all of them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys import Device, Params, open_gguf, predict_memory
from ggufphys.memory import compute_devices
from ggufphys.synth.catalogue import shape_named
from ggufphys.synth.plan import plan_file

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
        monkeypatch.setattr(compute_devices, "ATTEMPTS", ())
        assert few == [predict_memory(gguf, params).devices for params in GRID]
