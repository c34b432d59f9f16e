"""Flags of `inspect` for what stands beside a model, and files that are attachments themselves."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.clip.files import write_clip
from bench.clip.shape import ClipShape
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from tests.ggufphys.memory.attachments.adapter_files import write_control_vector, write_lora
from tests.ggufphys.models import llama_tensors, tiny_llama
from tests.server.chain_model import write_mixing_model


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A model and its attachments."""
    paths = {
        "tiny": tiny_llama(tmp_path / "tiny.gguf"),
        "lora": write_lora(tmp_path / "lora.gguf", llama_tensors()),
        "more": write_lora(tmp_path / "more.gguf", llama_tensors(), rank=3),
        "vector": write_control_vector(tmp_path / "vector.gguf", 256, 2),
        "mmproj": write_clip(tmp_path / "mmproj.gguf", ClipShape(projector="pixtral")),
    }
    return {name: str(path) for name, path in paths.items()}


def inspect(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The JSON document."""
    assert main(["inspect", *arguments, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def names(document: dict[str, Any], quantity: str) -> list[str]:
    """The terms of one quantity."""
    return [term["name"] for term in document["memory"]["terms"] if term["quantity"] == quantity]


def test_a_llama_server_line(capsys: pytest.CaptureFixture[str], files: dict[str, str]) -> None:
    """llama-server's flags can be pasted; what they attach is in the terms, and --server decides about slots."""
    line = (
        "{tiny} --lora {lora},{more} --lora-scaled {lora}:0.5 --control-vector {vector} -mm {mmproj} -md {tiny} "
        "-ctkd q8_0 --spec-draft-type-v q8_0 -ngld 0 --spec-draft-n-max 4 --server -cram 100 -ctxcp 2 "
        "--image-max-tokens 64 --no-mmproj-offload --device none"
    )
    document = inspect(capsys, *line.format(**files).split())

    assert [n for n in names(document, "attachment") if n.startswith("LoRA")] == ["LoRA lora", "LoRA more", "LoRA lora"]
    assert "control vector" in names(document, "attachment")
    assert "draft: KV cache" in names(document, "attachment")
    params = document["params"]
    assert (params["n_seq_max"], params["kv_unified"], params["n_outputs_max"]) == (4, True, 20)
    ceilings = {t["name"]: t["nbytes"] for t in document["memory"]["terms"] if t["quantity"] == "ceiling"}
    assert ceilings["server: prompt cache"] == 100 << 20
    assert "mmproj: larger or more images (vision pixtral)" not in ceilings  # 64 tokens are fewer than the warm-up's


def test_a_draft_that_reads_text_otherwise(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A draft of another vocabulary is refused as `serve` refuses it, by the files alone."""
    model = write_mixing_model(tmp_path / "model.gguf")
    for command in ("inspect", "fit"):
        assert main([command, str(model), "-md", str(MODEL), "-c", "512"]) == 2
        assert f"{MODEL} cannot guess for {model}: its tokenizer is of another kind" in capsys.readouterr().err


def test_slots_that_are_given(capsys: pytest.CaptureFixture[str], files: dict[str, str]) -> None:
    """With -np the cache is each slot's own; flags of llama-server alone imply --server."""
    params = inspect(capsys, files["tiny"], "-np", "2", "--cache-ram", "0")["params"]
    assert (params["n_seq_max"], params["kv_unified"], params["n_outputs_max"]) == (2, False, 2)


def test_text(capsys: pytest.CaptureFixture[str], files: dict[str, str]) -> None:
    """The table has rows for attachments in the total, and a table of its own for what may come later."""
    assert main(["inspect", files["tiny"], "--server", "--mmproj", files["mmproj"], "--device", "none"]) == 0
    out = capsys.readouterr().out
    for text in ("mmproj: weights (vision pixtral)", "later, not counted above", "server: prompt cache", "8,192.00"):
        assert text in out


@pytest.mark.parametrize("device", ["none", "CUDA0=1GiB"])
def test_devices(capsys: pytest.CaptureFixture[str], files: dict[str, str], device: str) -> None:
    """Totals of devices are the total, with attachments, wherever those lie."""
    document = inspect(capsys, files["tiny"], "--mmproj", files["mmproj"], "--lora", files["lora"], "--device", device)
    memory = document["memory"]
    keys = ("model_bytes", "context_bytes", "compute_bytes", "output_bytes", "attachment_bytes")
    assert sum(row[key] for row in memory["devices"] for key in keys) == memory["total_bytes"]


@pytest.mark.parametrize(
    ("flags", "device"),
    [("", "CUDA0"), ("-mmdev CUDA1", "CUDA1"), ("--mmproj-device none", "Host"), ("--no-mmproj-offload", "Host")],
)
def test_the_encoders_device(
    capsys: pytest.CaptureFixture[str], files: dict[str, str], flags: str, device: str
) -> None:
    """The encoder lies on the first device, the one that is named, or the host."""
    line = "{tiny} --mmproj {mmproj} --device CUDA0=1GiB,CUDA1=1GiB " + flags
    memory = inspect(capsys, *line.format(**files).split())["memory"]
    assert [row["name"] for row in memory["devices"] if row["attachment_bytes"]] == [device]


@pytest.mark.parametrize(("name", "term"), [("lora", "LoRA lora"), ("mmproj", "mmproj: weights (vision pixtral)")])
def test_an_attachment_by_itself(
    capsys: pytest.CaptureFixture[str], files: dict[str, str], name: str, term: str
) -> None:
    """`inspect` of an adapter or an mmproj file says what it takes."""
    document = inspect(capsys, files[name])
    assert names(document, "attachment")[0] == term
    assert document["memory"]["total_bytes"] == document["memory"]["attachment_bytes"] > 0
    assert document["memory"]["model_bytes"] is None
    assert main(["inspect", files[name]]) == 0
    assert term in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("{tiny} --lora {tiny}", 2, "expected a LoRA adapter"),
        ("{tiny} --lora nowhere.gguf", 3, "nowhere.gguf"),
        ("{tiny} --mmproj {lora}", 2, "expected an mmproj file"),
        ("{tiny} -md {mmproj}", 4, "not a model that can be run by itself"),
        ("{tiny} --lora-scaled {lora}", 2, "has no scale"),
        ("{tiny} --control-vector {lora}", 2, "expected a control vector"),
        (
            "{tiny} --mmproj {mmproj} --device CUDA0=1GiB -mmdev CUDA1",
            2,
            "--mmproj-device CUDA1: expected one of CUDA0",
        ),
        ("{tiny} -cram lots", 2, "is not a whole number"),
        ("{tiny} {tiny} --lora {lora}", 2, "stand beside one model"),
    ],
)
def test_errors(capsys: pytest.CaptureFixture[str], files: dict[str, str], line: str, code: int, message: str) -> None:
    """A wrong file or value ends in one clear line and an exit code."""
    try:
        exit_code = main(["inspect", *line.format(**files).split()])
    except SystemExit as stop:
        exit_code = int(stop.code or 0)
    assert exit_code == code
    assert message in capsys.readouterr().err
