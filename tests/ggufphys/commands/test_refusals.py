"""What is refused, by whom: the file, this build of llama.cpp, or the way in which it is to be run? By exit code."""

import json
import os
from pathlib import Path

import pytest

from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.gguf.writer import encode_header
from tests import archs, newer

WAYS = {
    "inspect": ["inspect"],
    "json": ["inspect", "--json"],
    "assert": ["inspect", "--assert-fits", "1GiB"],
    "sweep": ["inspect", "--sweep", "ctx=1k,2k"],
    "fit": ["fit", "--memory", "1GiB"],
}
# Architectures, and the exit codes of these ways: for a build that does not know them, for one that does.
KNOWN = dict.fromkeys(WAYS, 0)
UNKNOWN = dict.fromkeys(WAYS, 4)
GUESSED = {**UNKNOWN, "inspect": 0, "json": 0}  # an estimate answers no question of yes or no


def _write(folder: Path, arch: str) -> Path:
    """A small model of it; of a name without a rule llama's."""
    path = folder / "model.gguf"
    if arch in newer.models():
        newer.write(path, arch)
        return path
    if arch in archs.records():
        path.write_bytes(archs.header(arch))
        return path
    metadata = {key.replace("llama.", f"{arch}."): value for key, value in archs.models()["llama"].metadata.items()}
    path.write_bytes(encode_header({**metadata, "general.architecture": arch}, archs.records()["llama"].tensors))
    return path


@pytest.mark.parametrize(
    ("arch", "build", "codes"),
    [
        ("llama", "b8233", KNOWN),
        ("llama", "b99999", KNOWN),
        ("hy_v4", "b8233", UNKNOWN),  # with a rule, known since b10837
        ("hy_v4", "pinned", KNOWN),
        ("clef", "pinned", UNKNOWN),  # with a rule, known since b11391
        ("clef", "latest", KNOWN),
        ("beam", "pinned", UNKNOWN),  # without a rule, known since b11739
        ("beam", "latest", GUESSED),
        ("nobodys", "latest", UNKNOWN),
        ("nobodys", "b99999", GUESSED),
    ],
)
def test_what_a_build_does_not_know_is_unsupported(
    arch: str, build: str, codes: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that a build does not know is exit code 4 of each command, with the first record that does know it."""
    path = _write(tmp_path, arch)
    for way, (command, *flags) in WAYS.items():
        assert main([command, str(path), *flags, "--llama-build", build]) == codes[way], way
        out, err = capsys.readouterr()
        if codes is UNKNOWN and arch != "nobodys":
            assert f"does not know architecture {arch!r}: b" in err
            assert "no memory rule" not in err
            if way == "json":
                loads = json.loads(out)["loads"]
                assert loads["verdict"] == "refused"
                assert "is the first record that does" in loads["reasons"][0]["expected"]


@pytest.mark.parametrize("command", [["measure"], ["serve", "--port", "0"]])
def test_what_the_installed_llama_cpp_does_not_know(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that run llama.cpp refuse a newer architecture with exit code 4 before it is called."""
    assert main([*command, str(_write_whole(tmp_path, "clef"))]) == 4
    assert "does not know architecture 'clef'" in capsys.readouterr().err


@pytest.mark.parametrize("arch", ["nobodys", "clef"])
@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "--llama-build", "pinned"],
        ["fit", "--memory", "1GiB", "--llama-build", "pinned"],
        ["serve", "--port", "0"],
    ],
)
def test_a_draft_of_an_unknown_architecture(
    arch: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So is a draft, which is told by its file's or its architecture's name."""
    draft = _write(tmp_path, arch)
    os.truncate(draft, 1 << 24)  # weights of zeros, which `serve` asks for
    assert main([*command, str(MODEL), "-c", "300", "-md", str(draft)]) == 4
    err = capsys.readouterr().err
    assert str(draft) in err or repr(arch) in err


def _write_whole(folder: Path, name: str) -> Path:
    path = folder / "whole.gguf"
    if name in newer.models():
        newer.write(path, name)
    else:
        archs.write(path, name, archs.records()[name].tensors)
    return path


REFUSED_WAYS: tuple[tuple[str, list[str]], ...] = (
    ("plm", []),  # whose V cannot be stored with flash attention
    ("llama", ["-ctv", "q4_0", "-fa", "off"]),
    ("llama", ["-np", "300"]),
    ("deepseek2", ["-ctk", "q8_0", "-ctv", "q4_0"]),
    ("llama", ["--device", "CUDA0:1GiB", "-sm", "row"]),
)


@pytest.mark.parametrize(("name", "flags"), REFUSED_WAYS)
def test_parameters_are_no_fault_of_the_file(
    name: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What llama.cpp would not run like this is exit code 2 of each command, and never worded as the file's fault."""
    path = _write_whole(tmp_path, name)
    for command, *more in (["inspect"], ["inspect", "--json"], ["fit", "--memory", "1GiB"], ["measure"], ["serve"]):
        assert main([command, str(path), *more, *flags]) == 2, command
        out, err = capsys.readouterr()
        assert "would not load" not in out + err, command


def test_measure_runs_what_goes_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that llama.cpp runs without flash attention alone is measured without."""
    assert main(["measure", str(_write_whole(tmp_path, "plm")), "-fa", "off", "-n", "1", "-p", "4", "-c", "64"]) == 0
    assert "buffers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arch", "words", "code"),
    [
        ("llama", "-b 1", 2), ("llama", "-c 1", 2), ("mamba2", "-b 1", 2), ("llama", "-b 2 -ub 1", 0),
        ("llama", "-b 1 --as library", 0), ("bert", "-b 1", 0),
    ],
)  # fmt: skip
def test_llama_server_decodes_two_tokens(
    arch: str, words: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """llama-server of a model with a cache aborts where a batch is one token: it decodes two before anything else."""
    assert main(["inspect", str(_write(tmp_path, arch)), "-np", "1", *words.split()]) == code
    assert ("llama-server decodes 2 tokens at once" in capsys.readouterr().err) is bool(code)
