"""One graph for many contexts: the same bytes as from a graph built for each."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ggufphys import Device, Params, open_gguf
from ggufphys.context import ContextParams, resolve
from ggufphys.graph.allocating import layout
from ggufphys.graph.allocating.traced import GRAPHS, REMEMBERED, Tracer
from ggufphys.graph.batch import Batch
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.memory.predict import Predictor
from tests.ggufphys.models import shape_header

SHAPES = (
    "llama-3.1-8b", "gemma-3-4b", "qwen3-30b-a3b", "deepseek-v2-lite", "gpt-oss-20b", "mamba2-2.7b",
    "qwen3-next-80b-a3b",
)  # fmt: skip
CONTEXTS = (4096, 300, 512, 700, 1024, 8192, 40_000, 131_072)
RUNS: tuple[dict[str, Any], ...] = (
    {},
    {"n_seq_max": 4, "kv_unified": True, "type_k": "q8_0", "type_v": "q8_0"},
    {"flash_attn": "off", "n_seq_max": 2, "n_ubatch": 64},
    {"n_outputs_max": 16, "swa_full": True},
)
MORE: tuple[dict[str, Any], ...] = ({"n_cpu_moe": 30}, {"type_k": "q8_0", "type_v": "q8_0"})
DEVICES = ((), (Device(name="CUDA0", memory_bytes=24 << 30),), (Device(name="Vulkan0", memory_bytes=24 << 30),))


@pytest.mark.parametrize("name", SHAPES)
def test_contexts_one_after_the_other(tmp_path: Path, name: str) -> None:
    """A predictor that has seen other contexts says of each what a new one says, term by term."""
    with open_gguf(shape_header(tmp_path / "model.gguf", name)) as gguf:
        for devices in DEVICES:
            predictor = Predictor(gguf)
            for run in RUNS:
                for n_ctx in CONTEXTS:
                    params = Params(n_ctx=n_ctx, devices=devices, **run)

                    assert predictor.predict(params).terms == Predictor(gguf).predict(params).terms, params


@pytest.mark.parametrize("name", ["qwen3-next-80b-a3b", "qwen3-30b-a3b", "gemma-3-4b"])
def test_divisions_one_after_the_other(tmp_path: Path, name: str) -> None:
    """The same for ways of dividing a model, which share one graph: each finds it whole."""
    devices = tuple(Device(name=f"CUDA{i}", memory_bytes=8 << 30) for i in range(3))
    splits = ((1.0, 1.0, 1.0), (1.0, 2.0, 3.0), (30.0, 2.0, 2.0), (1.0, 1.0, 1.0))
    with open_gguf(shape_header(tmp_path / "model.gguf", name)) as gguf:
        predictor = Predictor(gguf)
        for n_ctx, split in product((4096, 8192), splits):
            for more in MORE:
                params = Params(n_ctx=n_ctx, tensor_split=split, devices=devices, **more)

                assert predictor.predict(params).terms == Predictor(gguf).predict(params).terms, params


def test_graphs_are_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts that differ in their length alone share a prompt's graph, the verdict's too, and a decode step's."""
    built: list[int] = []

    class Counted(Builder):
        def inp_pos(self, n_pos_per_embd: int = 1) -> Tensor:
            built.append(self.batch.n_tokens)
            return super().inp_pos(n_pos_per_embd)

    monkeypatch.setattr(layout, "Builder", Counted)
    with open_gguf(shape_header(tmp_path / "model.gguf", "llama-3.1-8b")) as gguf:
        predictor = Predictor(gguf)
        for n_ctx in (1024, 4096, 65_536):
            predictor.predict(Params(n_ctx=n_ctx))

    assert built == [512, 1]


def test_what_is_remembered_is_bounded() -> None:
    """However many graphs there were: also where others had them built, and where nothing can be made of them."""

    def build(context: ContextParams, _batch: Batch, _layers: object) -> Graph:
        int(context.n_ctx_seq)  # so that no graph is good for another length
        return Graph()

    def fail(_graph: Graph, _trace: object) -> None:
        raise ValueError("nothing can be made of it")

    tracer, batch = Tracer(build), Batch(n_tokens=1, n_seqs=1, n_outputs=1)
    for n_ctx in range(512, 256 * 20, 256):
        context = resolve(Params(n_ctx=n_ctx), n_ctx_train=0)
        for kind in ("first", "second"):
            tracer.made(kind, context, batch, None, lambda graph, _: graph)
        with pytest.raises(ValueError, match="nothing"):
            tracer.made("failing", context, batch, None, fail)

    assert {kind: len(made) for kind, made in tracer._made.items()} == {
        "first": REMEMBERED, "second": REMEMBERED, "failing": 0
    }  # fmt: skip
    assert [len(graphs) for graphs in tracer._graphs.values()] == [GRAPHS]
