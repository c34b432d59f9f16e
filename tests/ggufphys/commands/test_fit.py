"""`ggufphys fit`: flags that can be pasted, exit codes, JSON."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from ggufphys.cli import main
from ggufphys.commands import devices as devices_here
from ggufphys.machine import devices as host_devices
from ggufphys.machine import host
from ggufphys.params import Device
from ggufphys.speed.rates import SCHEMA_VERSION
from tests.ggufphys.models import shape_header, tiny_llama


@pytest.fixture
def llama(tmp_path: Path) -> str:
    """A model of 8 B parameters."""
    return os.fspath(shape_header(tmp_path / "llama.gguf", "llama-3.1-8b"))


def fit_json(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> dict[str, Any]:
    """The document of a run that ends with this exit code."""
    assert main(["fit", "--json", *arguments]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.parametrize(
    "asked",
    [
        ["--memory", "6GiB"],
        ["--memory", "4GiB,3GiB", "--prefer", "ctx", "--margin", "256MiB"],
        ["--memory", "8GiB", "-np", "2", "-ctk", "q8_0", "-ctv", "q8_0", "-nkvo", "--no-mmap", "-b", "1024"],
        ["--device", "Vulkan0=5GiB", "-ot", r"blk\.3\..*=CPU", "-fa", "on", "--swa-full", "--no-host"],
        ["--rpc", "10.0.0.1:50052=4GiB,10.0.0.2:50052=4GiB", "--device", "RPC1,RPC0", "-ngl", "20"],
        ["--device", "none", "--ram", "8GiB", "--no-repack", "-t", "3", "--mlock"],
    ],
)
def test_flags_say_what_was_chosen(llama: str, capsys: pytest.CaptureFixture[str], asked: list[str]) -> None:
    """`inspect --server` with the flags of the answer predicts what the answer says, and it fits."""
    ram = [] if "--ram" in asked else ["--ram", "32GiB"]  # whatever is free here just now
    document = fit_json(capsys, 0, llama, *asked, *ram)
    fit = document["fit"]
    assert fit["command"][:3] == ["llama-server", "-m", llama]
    assert fit["fits"]
    assert all(place["over_bytes"] <= 0 for place in fit["places"])

    sizes = [f"{d['name'].partition('[')[0]}={d['memory_bytes']}" for d in document["params"]["devices"]]
    flags = fit["flags"]
    if "--rpc" in flags:
        assert flags[flags.index("--rpc") + 1] == "10.0.0.2:50052,10.0.0.1:50052"
        assert flags[flags.index("-dev") + 1] == "RPC0,RPC1"
        return  # sizes would go with --rpc; the order of servers is that of the devices
    flags += ["-dev", ",".join(sizes)] if sizes and "-dev" not in flags else []
    flags = [",".join(sizes) if word == "Vulkan0" else word for word in flags]
    assert main(["inspect", "--json", "--server", llama, *flags]) == 0
    again = json.loads(capsys.readouterr().out)
    if "-fa" in flags:  # a quantised cache insists on what auto counted as
        document["params"]["flash_attn"] = "on"
    assert again["params"] == document["params"]
    assert again["memory"]["devices"] == document["memory"]["devices"]
    assert again["memory"]["process_bytes"] == document["memory"]["process_bytes"]


def test_text(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The report holds one line to paste, what is left where, and where one step more fails."""
    assert main(["fit", llama, "--memory", "8GiB,6GiB", "--prefer", "ctx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    command = next(line for line in lines if line.startswith("llama-server"))
    words = shlex.split(command)
    assert words[words.index("-c") + 1] == "131072"
    assert words[-2:] == ["--fit", "off"]
    assert "-dev" not in words  # --memory says how much there is, not what it is called
    assert any(line.startswith("CUDA1  ") and line.endswith("1,024.00") and "output" in line for line in lines)
    assert any(line.startswith("one step more, more bits for K and V: -ctk ") for line in lines)


def test_nothing_fits(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, what is missing where, and things that would help, each of which does."""
    arguments = [llama, "--memory", "6GiB", "-ngl", "99"]
    fit = fit_json(capsys, 1, *arguments, "--ctx", "64k")["fit"]
    assert (fit["fits"], fit["command"]) == (False, None)
    helps = {help_["kind"]: help_ for help_ in fit["helps"]}
    n_ctx = helps["context"]["n_ctx"]
    assert fit_json(capsys, 0, *arguments, "--ctx", str(n_ctx))["fit"]["fits"]
    fit_json(capsys, 1, *arguments, "--ctx", str(n_ctx + 256))
    more = (6 << 30) + helps["memory"]["more_bytes"]["CUDA0"]
    fit_json(capsys, 0, llama, "--memory", str(more), "-ngl", "99", "--ctx", "64k")
    fit_json(capsys, 1, llama, "--memory", str(more - (1 << 20)), "-ngl", "99", "--ctx", "64k")

    assert main(["fit", *arguments, "--ctx", "64k"]) == 1
    text = capsys.readouterr().out
    assert f"it would fit with a context of {n_ctx:,}" in text
    assert "MiB too much on CUDA0" in text
    assert "or as " in text


def test_levers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a GPU weights are read instead of mapped before context or bits go; the price is told in words."""
    llama = os.fspath(shape_header(tmp_path / "llama.gguf", "llama-3.1-8b"))
    experts = os.fspath(shape_header(tmp_path / "experts.gguf", "qwen3-30b-a3b"))
    document = fit_json(capsys, 0, llama, "--ram", "8GiB", "--device", "none")
    params = document["params"]
    assert (params["n_ctx"], params["type_k"], params["load_mode"], params["use_extra_bufts"]) == (
        26112, "f16", "none", True,
    )  # fmt: skip
    assert document["fit"]["prices"][0]["flags"] == "-lm none"
    assert {step["goal"]: step["flags"] for step in document["fit"]["next_steps"]}["mmap"] == ["-lm", "mmap"]
    assert fit_json(capsys, 0, experts, "--ram", "24GiB", "--device", "none")["params"]["n_ctx"] == 40960
    kept = fit_json(capsys, 0, llama, "--ram", "8GiB", "--device", "none", "-lm", "mmap")
    assert kept["params"]["load_mode"] == "mmap"
    assert kept["params"]["n_ctx"] < 26112
    plenty = fit_json(capsys, 0, llama, "--ram", "64GiB", "--device", "none")
    assert (plenty["params"]["load_mode"], plenty["fit"]["prices"]) == ("mmap", [])
    assert main(["fit", llama, "--ram", "8GiB", "--device", "none"]) == 0
    assert "the price of -lm none: weights are read, not mapped" in capsys.readouterr().out


def test_margin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of little memory no more than a quarter is kept free, and a margin that alone is in the way is told."""
    small = os.fspath(shape_header(tmp_path / "small.gguf", "llama-110m"))
    document = fit_json(capsys, 0, small, "--memory", "512MiB")
    places = {place["name"]: place for place in document["fit"]["places"]}
    assert places["CUDA0"]["margin_bytes"] == 128 << 20
    assert document["params"]["n_gpu_layers"] == document["fit"]["n_layers"]

    assert main(["fit", small, "--memory", "512MiB", "--margin", "500MiB"]) == 0
    assert "too much on CUDA0, for the margin of 500.00 alone" in capsys.readouterr().out
    assert fit_json(capsys, 0, small, "--memory", "24GiB")["fit"]["places"][0]["margin_bytes"] == 1 << 30


def test_as_library(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A bare call has one sequence and every row of logits, and its line is llama-completion's."""
    document = fit_json(capsys, 0, llama, "--memory", "8GiB", "--as", "library")
    assert (document["params"]["as"], document["params"]["n_seq_max"]) == ("library", 1)
    assert document["params"]["n_outputs_max"] == document["params"]["n_batch"]
    command = document["fit"]["command"]
    assert command[0] == "llama-completion"
    assert "-np" not in command
    assert "-cram" not in command


def test_this_machine(llama: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without sizes it is what this machine has, some of it left free; notes say so."""
    card = host_devices.FoundDevice(device=Device(name="CUDA0", memory_bytes=8 << 30), description="a card")
    monkeypatch.setattr(devices_here, "find_devices", lambda: (card,))
    monkeypatch.setattr(host, "main_memory", lambda: host.MainMemory(total_bytes=16 << 30, available_bytes=10 << 30))
    document = fit_json(capsys, 0, llama)
    places = {place["name"]: place for place in document["fit"]["places"]}
    assert places["CUDA0"]["memory_bytes"] == 8 << 30
    assert places["Host"]["memory_bytes"] == 10 << 30
    assert {place["margin_bytes"] for place in places.values()} == {1 << 30}
    assert any("this machine's a card" in note for note in document["notes"])
    assert any("10.00 GiB; --ram says otherwise" in note for note in document["notes"])

    command = fit_json(capsys, 0, llama, "--ram", "2GiB", "-cram", "0")["fit"]["command"]
    assert command[command.index("-cram") + 1] == "0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "much"], "not a size: 'much'"),
        (["--memory", "8G", "--ctx", "4k", "-c", "8k"], "give one of them"),
        (["--memory", "8G,4G", "--device", "CUDA0"], "--memory names 2 sizes for 1 devices"),
        (["--device", "CUDA7", "--ram", "8G"], "how much memory CUDA7 has is not known"),
        (["--memory", "8G", "--margin", "1G,1G"], "2 margins for 1 devices"),
        (["--memory", "8G", "-fa", "off", "-ctv", "q8_0"], "needs flash attention"),
        (["--memory", "8G", "-sm", "row"], "split_mode row"),
    ],
)
def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """What cannot be asked is exit code 2, with a reason."""
    assert main(["fit", os.fspath(tiny_llama(tmp_path / "tiny.gguf")), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_memory_of_what(llama: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--memory` is a GPU's, by the name of this machine's; where there is none it is told how to name main memory."""
    monkeypatch.setattr("ggufphys.commands.fit.find_devices", tuple)
    document = fit_json(capsys, 0, llama, "--memory", "8GiB")
    assert [device["name"] for device in document["params"]["devices"]] == ["CUDA0"]
    assert "--memory is what a GPU has; for main memory alone: --ram 8GiB" in document["notes"]

    metal = host_devices.FoundDevice(device=Device(name="MTL0", memory_bytes=1 << 30), description="a chip")
    monkeypatch.setattr("ggufphys.commands.fit.find_devices", lambda: (metal,))
    document = fit_json(capsys, 0, llama, "--memory", "8GiB")
    assert [(d["name"], d["memory_bytes"]) for d in document["params"]["devices"]] == [("MTL0", 8 << 30)]
    assert not any("--ram 8GiB" in note for note in document["notes"])


def test_least_context_by_llama_cpps_name(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--fit-ctx` is llama.cpp's name for the least context, `--ctx` ours."""
    ours, theirs = (fit_json(capsys, 0, llama, "--memory", "8GiB", name, "16k") for name in ("--ctx", "--fit-ctx"))

    assert ours["fit"] == theirs["fit"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema_version": 1}', "a calibration of schema 1"),
        (f'{{"schema_version": {SCHEMA_VERSION}}}', "processors is empty or missing"),
        (
            f'{{"schema_version": {SCHEMA_VERSION}, "processors": [{{"name": "CPU", "n_threads": 1}}]}}',
            "processors[0] has no streams",
        ),
        ("{", "not JSON"),
    ],
)
def test_memory_fits_without_rates(
    llama: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text: str,
    words: str,
) -> None:
    """Rates that cannot be read leave the answer as it is without any, and are told; a target needs them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = ["fit", llama, "--ram", "16GiB", "-dev", "none"]
    assert main(arguments) == 0
    without = capsys.readouterr().out
    kept = tmp_path / "ggufphys" / "speed" / "calibration.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(text)
    assert main(arguments) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line not in without.splitlines()]
    assert len(told) == 1
    assert words in told[0]
    assert "bench calibrate" in told[0]
    assert main([*arguments, "--target", "1tok/s"]) == 2
    assert words in capsys.readouterr().err
