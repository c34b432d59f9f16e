"""Why there are so many bytes: rows of layers that add up to the prediction."""

import json
import os
from pathlib import Path

import pytest

from ggufphys import Params, open_gguf
from ggufphys.cli import main
from ggufphys.memory.predict import Predictor
from ggufphys.params import HOST, Device
from ggufphys.plan.explain import folded, layer_rows
from tests.ggufphys.models import shape_header, tiny_llama

DEVICES = (Device(name="CUDA0", memory_bytes=2 << 30), Device(name="CUDA1", memory_bytes=1 << 30))
RUNS = (
    Params(n_ctx=3000, n_seq_max=2),
    Params(n_ctx=8192, devices=DEVICES),
    Params(n_ctx=8192, devices=DEVICES, n_gpu_layers=9, offload_kqv=False, swa_full=True),
)


@pytest.mark.parametrize(
    "shape", ["gemma-3-4b", "mamba2-2.7b", "qwen3-next-80b-a3b", "deepseek-v2-lite", "llama-3.1-8b"]
)
@pytest.mark.parametrize("params", RUNS)
def test_rows_add_up(tmp_path: Path, shape: str, params: Params) -> None:
    """Every layer is there; rows add up to context_bytes on each device, and so do the folded ones."""
    with open_gguf(shape_header(tmp_path / "model.gguf", shape)) as gguf:
        predictor = Predictor(gguf)
        prediction = predictor.predict(params)
        rows = layer_rows(predictor, params, prediction.context)

    assert {row.first for row in rows} == set(range(predictor.h.n_layer_all))
    for device in prediction.devices:
        kept = [row for row in rows if row.kv_device == device.name]
        assert sum(row.nbytes for row in kept) == device.context_bytes
        assert sum(row.total_bytes for row in folded(kept)) == device.context_bytes
    assert sum(row.n_layers for row in folded(rows)) == len(rows)


def test_folding_breaks_at_a_device(tmp_path: Path) -> None:
    """Alike layers on two devices are two rows; a layer's cache is where offload_kqv says."""
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf")) as gguf:
        predictor = Predictor(gguf)
        host, split, apart = (
            folded(layer_rows(predictor, params, predictor.predict(params).context))
            for params in (
                Params(),
                Params(devices=DEVICES[:1], n_gpu_layers=2),
                Params(devices=DEVICES[:1], offload_kqv=False),
            )
        )

    assert [(row.first, row.last, row.device) for row in host] == [(0, 1, HOST)]
    assert [(row.first, row.last, row.device) for row in split] == [(0, 0, HOST), (1, 1, "CUDA0")]
    assert [(row.first, row.last, row.device, row.kv_device) for row in apart] == [(0, 1, "CUDA0", HOST)]


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text has a line a run of layers, and each term with formula and source; the document a row a layer."""
    path = os.fspath(tiny_llama(tmp_path / "tiny.gguf"))
    assert main(["inspect", path, "-c", "512", "--explain"]) == 0
    text = capsys.readouterr().out
    assert "0-1     Host  KV cache  512    K 128 f16, V 128 f16         0.25  0.50" in text
    assert "= 2 layers x 1 streams x 512 cells x (K 128 f16 = 256 B + V 128 f16 = 256 B)" in text
    assert "src/llama-kv-cache.cpp, llama_kv_cache ctor" in text

    assert main(["inspect", path, "-c", "512", "--explain", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layers"][1] == {
        "layer": 1, "device": "Host", "kv_device": "Host", "keeps": "KV cache", "n_cells": 512, "n_stream": 1,
        "tensors": [
            {"name": "K", "type": "f16", "width": 128, "n_rows": 512},
            {"name": "V", "type": "f16", "width": 128, "n_rows": 512},
        ],
        "nbytes": 262144,
    }  # fmt: skip
    assert sum(row["nbytes"] for row in document["layers"]) == document["memory"]["context_bytes"]
