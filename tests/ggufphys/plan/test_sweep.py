"""Predictions over ranges: the points asked for, each as if it were asked for alone."""

import csv
import json
import os
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from ggufphys import Params, open_gguf, predict_memory
from ggufphys.builds import LATEST
from ggufphys.cli import main
from ggufphys.flags.run import add_run_arguments
from ggufphys.plan.sweep import PARAMETERS, parse_sweep
from tests.ggufphys.models import shape_header, tiny_llama


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("ctx=4k..32k", {"n_ctx": [4096, 8192, 16384, 32768]}),
        ("c=1000..3000", {"n_ctx": [1000, 2000, 3000]}),
        ("--ctx-size=1k..2k:512,np=1,4", {"n_ctx": [1024, 1536, 2048], "n_seq_max": [1, 4]}),
        ("ngl=0..33:8,-ctk=f16,q8_0", {"n_gpu_layers": [0, 8, 16, 24, 32, 33], "type_k": ["f16", "q8_0"]}),
        ("n-gpu-layers=all,4 , kvu=on,off", {"n_gpu_layers": [-1, 4], "kv_unified": [True, False]}),
        ("type_kv=f16,q4_0,f16,ub=512", {"type_kv": ["f16", "q4_0"], "n_ubatch": [512]}),
    ],
)
def test_axes(text: str, axes: dict[str, list[object]]) -> None:
    """Parameters go by their names and flags; ranges double or add, and end with their end; repeats count once."""
    assert {axis.name: list(axis.values) for axis in parse_sweep(text)} == axes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rope=1", "no parameter 'rope', expected one of n_ctx, "),
        ("ctx", "expected NAME=VALUE"),
        ("ngl=0..8", "0 cannot be doubled: give a step"),
        ("ctx=8k..4k", "from a smaller to a larger"),
        ("ctx=4k..8k:0", "a step of at least 1"),
        ("ctk=q9_0", "'q9_0': expected one of f32"),
        ("fa=maybe", "expected one of auto, on, off"),
        ("type_k=f16,type_kv=q8_0", "type_k is named twice"),
        ("ctx=1..1m:1", "more than 20,000 points: take a larger step"),
        ("ctx=", "is not a count"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    """What cannot be read is refused by name."""
    with pytest.raises(ValueError, match=message):
        parse_sweep(text)


def test_every_name_is_a_flag() -> None:
    """Other names of a parameter are flags of llama.cpp that set the same field, or a flag's other half."""
    import argparse

    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    flags = {
        option.lstrip("-").replace("-", "_"): action.dest
        for action in parser._actions
        for option in action.option_strings
    }
    for parameter in PARAMETERS.values():
        for name in parameter.names:
            field = flags.get(name) or flags.get(f"no_{name}")
            assert field in (*parameter.fields, None if name == "ctx" else "?"), name


def test_points_are_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each point says what predict_memory says of it; one that llama.cpp refuses has its reason and no bytes."""
    path = os.fspath(shape_header(tmp_path / "model.gguf", "gemma-3-4b"))
    base = Params.server(n_seq_max=2, type_v="q8_0", llama_build=LATEST)
    arguments = ["inspect", path, "-np", "2", "-ctv", "q8_0", "--sweep", "ctx=4k..16k,fa=on,off,ub=128,512"]
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)

    assert document["sweep"] == {
        "n_ctx": [4096, 8192, 16384], "flash_attn": ["on", "off"], "n_ubatch": [128, 512]
    }  # fmt: skip
    assert len(document["points"]) == 12
    with open_gguf(path) as gguf:
        for point in document["points"]:
            if point["values"]["flash_attn"] == "off":
                assert "needs flash attention" in point["refused"]
                assert point["total_bytes"] is None
                continue
            prediction = predict_memory(gguf, replace(base, **point["values"]))
            for name in ("model", "context", "compute", "output", "total", "process"):
                assert point[f"{name}_bytes"] == getattr(prediction, f"{name}_bytes")

    assert main([*arguments, "--csv"]) == 0
    rows = list(csv.DictReader(StringIO(capsys.readouterr().out)))
    assert [row["total_bytes"] for row in rows] == [str(p["total_bytes"] or "") for p in document["points"]]


def test_server_and_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Slots that are swept are not llama-server's to choose, outputs follow them; devices have columns of their own."""
    path = os.fspath(tiny_llama(tmp_path / "tiny.gguf"))
    assert main(["inspect", path, "--server", "--sweep", "np=1,2", "--device", "CUDA0=1GiB", "--csv"]) == 0
    rows = list(csv.DictReader(StringIO(capsys.readouterr().out)))
    assert [int(row["output_bytes"]) for row in rows] == [512 * 4, 512 * 4 * 2]
    for row in rows:
        assert int(row["Host_bytes"]) + int(row["CUDA0_bytes"]) == int(row["total_bytes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--csv"], "--csv: for --sweep, which is not given"),
        (["--sweep", "ctx=1k", "--csv", "--json"], "--json: not with --csv"),
        (["--sweep", "ctx=1k", "--explain"], "asks about many runs"),
        (["--sweep", "ctx=1k", "--plot", "picture.gif"], "expected a name ending in .png or .svg"),
        (["--sweep", "ctv=q8_0,q4_0", "-fa", "off"], "needs flash attention, which is off"),
    ],
)
def test_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """Questions that contradict each other, and sweeps without any point, end with exit code 2."""
    assert main(["inspect", os.fspath(tiny_llama(tmp_path / "tiny.gguf")), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plot(tmp_path: Path, suffix: str) -> None:
    """A picture is written where matplotlib is installed."""
    pytest.importorskip("matplotlib")
    picture = tmp_path / f"sweep{suffix}"
    path = os.fspath(tiny_llama(tmp_path / "tiny.gguf"))
    sweep = ["--sweep", "ctx=256..2k,type_kv=f16,q8_0,fa=on,off", "--device", "CUDA0=1GiB"]
    assert main(["inspect", path, *sweep, "--plot", os.fspath(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def test_lengths_that_nobody_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows whose contexts differ because of what a device has room for are told to be no even comparison."""
    path = os.fspath(shape_header(tmp_path / "model.gguf", "llama-3.1-8b"))
    words = ["inspect", path, "--device", "CUDA0=8GiB", "--sweep", "type_kv=f16,q4_0"]
    assert main([*words, "--json"]) == 0
    few, many = (point["n_ctx"] for point in json.loads(capsys.readouterr().out)["points"])
    assert few < many
    assert main(words) == 0
    assert f"note: n_ctx is {few:,} to {many:,}" in capsys.readouterr().out
    assert main([*words, "-c", "4096"]) == 0
    assert "note: n_ctx" not in capsys.readouterr().out


def test_flags_given_one_by_one_are_one_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second --sweep adds a range, where it silently took the place of the first; twice the same is refused."""
    path = os.fspath(tiny_llama(tmp_path / "tiny.gguf"))
    assert main(["inspect", path, "--sweep", "ctx=1k,2k", "--sweep", "np=1,2", "--csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 4
    assert main(["inspect", path, "--sweep", "ctx=1k,2k", "--sweep", "c=4k"]) == 2
    assert "n_ctx is named twice" in capsys.readouterr().err
