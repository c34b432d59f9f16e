"""Whether it fits: an exit code for scripts, at the byte."""

import json
from pathlib import Path

import pytest

from ggufphys import Params, open_gguf, predict_memory
from ggufphys.cli import main
from ggufphys.gguf.writer import encode_header
from ggufphys.params import Device
from ggufphys.plan.fits import fits, memory_limit
from tests.ggufphys.models import shape_header, tiny_llama


def test_to_the_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It fits into exactly what the process needs, and not into a byte less; the report says which and by how much."""
    path = str(tiny_llama(tmp_path / "tiny.gguf"))
    with open_gguf(path) as gguf:
        needed = predict_memory(gguf, Params(n_ctx=512)).process_bytes

    assert main(["inspect", path, "-c", "512", "--as", "library", "--assert-fits", str(needed)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(", 0 B left")
    assert main(["inspect", path, "-c", "512", "--as", "library", "--assert-fits", str(needed - 1)]) == 1
    out = capsys.readouterr().out
    assert "KV cache" in out
    assert out.splitlines()[-1].startswith("does not fit: the process needs ")
    assert out.splitlines()[-1].endswith(", 1 B too much")
    assert main(["inspect", "--json", path, "-c", "512", "--as", "library", "--assert-fits", str(needed - 1)]) == 1
    assert json.loads(capsys.readouterr().out)["fits"] == [
        {"name": "Host", "needed_bytes": needed, "memory_bytes": needed - 1, "margin_bytes": -1, "fits": False}
    ]


def test_would_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not fit is told with the cheapest change that helps, which does."""
    path = str(shape_header(tmp_path / "model.gguf", "llama-3.1-8b"))
    for limit, code in (("8GiB", 0), ("6200MiB", 0), ("5GiB", 0), ("1GiB", 1)):
        arguments = ["inspect", path, "-c", "16k", "--device", "none", "--assert-fits", limit]
        assert main([*arguments, "--json"]) == 1
        change = json.loads(capsys.readouterr().out)["would_fit"]
        assert (change is None) == bool(code)
        assert main([*arguments, *(change["flags"] if change else [])]) == code
        assert ("it would fit" in capsys.readouterr().out) is False
        assert main(arguments) == 1
        out = capsys.readouterr().out
        assert ("it would fit with -" in out) == (change is not None)
    assert main(["inspect", path, "-c", "16k", "--device", "none", "--assert-fits", "8GiB", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["would_fit"]["flags"] == ["-lm", "none"]


def test_not_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who does not ask is not told."""
    assert main(["inspect", "--json", str(tiny_llama(tmp_path / "tiny.gguf"))]) == 0
    assert "fits" not in json.loads(capsys.readouterr().out)


def test_devices(tmp_path: Path) -> None:
    """A device is held to its own memory where that is known."""
    devices = (Device(name="CUDA0", memory_bytes=1 << 10), Device(name="CUDA1"))
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf")) as gguf:
        prediction = predict_memory(gguf, Params(n_ctx=512, devices=devices, tensor_split=(1, 1)))
    host, device = fits(prediction, 1 << 40)

    assert (host.name, host.holds) == ("Host", True)
    assert (device.name, device.holds, device.memory_bytes) == ("CUDA0", False, 1 << 10)
    assert device.needed_bytes == next(d for d in prediction.devices if d.name == "CUDA0").total_bytes


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{tiny}", "--assert-fits", "24GiB,12GiB"], 2, "'24GiB,12GiB' names several sizes, expected one"),
        (["{tiny}", "--assert-fits", "much"], 2, "not a size: 'much'"),
        (["{tiny}", "{tiny}", "--explain"], 2, "questions about one model; several are named"),
        (["{mmproj}", "--assert-fits", "1G"], 4, "not a model that can be run by itself"),
    ],
)
def test_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    """A question that cannot be answered is never answered with exit code 0."""
    (tmp_path / "mmproj.gguf").write_bytes(encode_header({"general.architecture": "clip"}, []))
    names = {"tiny": str(tiny_llama(tmp_path / "tiny.gguf")), "mmproj": str(tmp_path / "mmproj.gguf")}

    assert main(["inspect", *(a.format(**names) for a in arguments)]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("text", "nbytes"), [("24GiB", 24 << 30), ("512m", 512 << 20), ("1048576", 1 << 20)])
def test_sizes(text: str, nbytes: int) -> None:
    """Sizes are written as everywhere."""
    assert memory_limit(text) == nbytes
