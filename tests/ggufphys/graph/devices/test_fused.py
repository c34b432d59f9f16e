"""Where llama.cpp leaves flash attention on: one graph's answer for all divisions is that of each division's graph."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from ggufphys import Device, GGUFFile, Params, open_gguf
from ggufphys.context import ContextParams
from ggufphys.errors import GGUFPhysError
from ggufphys.gguf import GGMLType
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.devices import fused
from ggufphys.graph.devices.backends import vulkan_ops
from ggufphys.graph.devices.placed import Placed
from ggufphys.graph.devices.runs import Runs
from ggufphys.limits import DISCRETE
from tests.ggufphys.models import shape_header
from tests.load_models import own_drafts
from tests.random_runs import reshaped


def context_of(gguf: GGUFFile, params: Params) -> ContextParams | str:
    """What llama.cpp makes of the parameters, or why it makes nothing."""
    try:
        return Runs(gguf).context(params)
    except (GGUFPhysError, ValueError) as error:
        return str(error)


@pytest.mark.parametrize("name", ["CUDA", "Vulkan", "SYCL"])
def test_one_graph_tells_of_all_divisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The context of every other small model is the same where each division has a graph built for it."""
    base = Params(n_ctx=512, devices=tuple(Device(name=f"{name}{i}", memory_bytes=8 << 30) for i in range(2)))
    runs = base, replace(base, n_seq_max=2, tensor_split=(1.0, 3.0))
    follows, asked, other = fused._follows_its_cache, list[bool](), {}

    def noted(layouts: Layouts, context: ContextParams, placed: Placed) -> bool:
        asked.append(follows(layouts, context, placed))
        return asked[-1]

    for draft in list(own_drafts())[::2]:
        draft.write(tmp_path / "m.gguf")
        with open_gguf(tmp_path / "m.gguf") as gguf:
            for params in runs:
                monkeypatch.setattr(fused, "_follows_its_cache", noted)
                found = context_of(gguf, params)
                monkeypatch.setattr(fused, "_follows_its_cache", lambda *_: False)
                if found != (alone := context_of(gguf, params)):
                    other[draft.name] = found, alone

    assert other == {}
    assert any(asked)


def test_attention_between_states_follows_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Divisions of a model with recurrent layers are not asked one by one."""
    devices = tuple(Device(name=f"CUDA{i}", memory_bytes=8 << 30) for i in range(3))
    monkeypatch.delattr(fused, "divided")
    with open_gguf(shape_header(tmp_path / "m.gguf", "qwen3-next-80b-a3b")) as gguf:
        runs = Runs(gguf)
        for split in ((1.0, 1.0, 1.0), (1.0, 2.0, 3.0), (3.0, 1.0, 1.0)):
            assert runs.context(Params(n_ctx=4096, tensor_split=split, devices=devices)).flash_attn


@pytest.mark.parametrize("name", ["jamba", "mimo2"])
@pytest.mark.parametrize("device", ["CUDA0", "SYCL0", "MTL0"])
def test_heads_of_keys_and_values_go_together(tmp_path: Path, name: str, device: str) -> None:
    """Heads of 64 and of 128 there are, but not of 64 for keys with 128 for values: "auto" is off where these meet."""
    sizes = {"head_count_kv": 2, "key_length": 64, "value_length": 128}
    draft = reshaped(name, {f"{name}.attention.{key}": n for key, n in sizes.items()})
    assert draft is not None
    draft.write(tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as gguf:
        runs = Runs(gguf)

        assert not runs.context(Params(n_ctx=512, devices=(Device(name=device, memory_bytes=1 << 34),))).flash_attn


def test_vulkan_asks_of_keys_and_values_each_by_itself(tmp_path: Path) -> None:
    """What it has for heads of two sizes it has for keys of one with values of the other, in caches of any types."""
    types = (GGMLType.F16, GGMLType.BF16, GGMLType.F32, GGMLType.Q8_0)
    params = Params(n_ctx=512)
    with open_gguf(shape_header(tmp_path / "m.gguf", "llama-3.1-8b")) as gguf:
        context = Runs(gguf).context(params)
    for type_k, type_v in product(types, types):
        run = replace(context, type_k=type_k, type_v=type_v)
        has = {
            (n_k, n_v): vulkan_ops.supports(fused._trial(n_k, n_v, run), DISCRETE)
            for n_k, n_v in product(range(32, 260, 4), repeat=2)
        }

        assert all(found == (has[n_k, n_k] and has[n_v, n_v]) for (n_k, n_v), found in has.items())
