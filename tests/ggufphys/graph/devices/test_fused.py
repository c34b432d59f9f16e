"""Where llama.cpp leaves flash attention on: one graph's answer for all divisions is that of each division's graph."""

from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys import Device, GGUFFile, Params, open_gguf
from ggufphys.context import ContextParams
from ggufphys.errors import GGUFPhysError
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.devices import fused
from ggufphys.graph.devices.placed import Placed
from ggufphys.graph.devices.runs import Runs
from tests.ggufphys.models import shape_header
from tests.load_models import own_drafts


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
