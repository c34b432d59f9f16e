"""`inspect FOLDER`: a row a model, whatever lies in it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ggufphys import Params, open_gguf, predict_memory
from ggufphys.builds import LATEST
from ggufphys.cli import main
from ggufphys.commands.folder import FILES_PER_JOB
from ggufphys.gguf.locate import names_several
from ggufphys.gguf.writer import encode_header
from ggufphys.machine.output import runs
from ggufphys.plan.folder import find_models
from tests.ggufphys.gguf.http_server import Site, serving
from tests.ggufphys.gguf.remote_files import model, shards, without_environment
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model
from tests.ggufphys.stores.machine import hub_file, ollama_model


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a model, a split one, one nobody knows, an attachment, a broken file, and what is no model."""
    folder = tmp_path / "models"
    (folder / "deep" / "er").mkdir(parents=True)
    tiny_llama(folder / "b.gguf")
    for name, data in shards("split").items():
        (folder / "deep" / name).write_bytes(data)
    write_model(folder / "deep" / "er" / "new.GGUF", llama_metadata("llama9"), llama_tensors())
    (folder / "mmproj.gguf").write_bytes(encode_header({"general.architecture": "clip"}, []))
    (folder / "cut.gguf").write_bytes((folder / "b.gguf").read_bytes()[:100])
    (folder / "lost.gguf").symlink_to(tmp_path / "nowhere")
    (folder / "README.md").write_text("no model")
    return folder


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """The rows of the JSON document by file name."""
    assert main(["inspect", "--json", *arguments]) == code
    document = json.loads(capsys.readouterr().out)
    assert (document["schema_version"], set(document)) == (1, {"schema_version", "files"})
    return {Path(row["path"]).name: row for row in document["files"]}


def test_rows(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every *.gguf below the folder has its row, a split model one; figures are those of the file alone."""
    rows = rows_of(capsys, str(models), "-c", "512", "--as", "library")
    with open_gguf(models / "b.gguf") as gguf:
        alone = predict_memory(gguf, Params(n_ctx=512, llama_build=LATEST))

    assert set(rows) == {
        "b.gguf", "cut.gguf", "lost.gguf", "mmproj.gguf", "new.GGUF", "split-00001-of-00003.gguf",
    }  # fmt: skip
    row = rows["b.gguf"]
    assert (row["architecture"], row["name"], row["kind"], row["n_ctx"], row["reason"]) == (
        "llama", "tiny", "model", 512, "",
    )  # fmt: skip
    for quantity in ("model", "context", "compute", "output", "total", "process"):
        assert row[f"{quantity}_bytes"] == getattr(alone, f"{quantity}_bytes")
    assert row["basis"] == alone.basis
    split = rows["split-00001-of-00003.gguf"]
    assert (split["n_shards"], split["n_tensors"], split["n_params"]) == (3, 20, row["n_params"])
    assert split["file_bytes"] == sum(len(data) for data in shards("split").values())


def test_reasons(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be read or predicted keeps what is known, and says why; every row has every key."""
    rows = rows_of(capsys, str(models))

    assert {tuple(row) for row in rows.values()} == {tuple(rows["b.gguf"])}
    assert rows["new.GGUF"]["model_bytes"] > 0
    assert rows["new.GGUF"]["context_bytes"] is None
    assert "architecture 'llama9'" in rows["new.GGUF"]["reason"]
    assert rows["mmproj.gguf"]["reason"] == "not a model by itself: mmproj"
    assert rows["cut.gguf"]["reason"].startswith("truncated: ")
    assert (rows["cut.gguf"]["architecture"], rows["cut.gguf"]["file_bytes"]) == (None, None)
    assert rows["lost.gguf"]["reason"] == "No such file or directory"


def test_text(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has a line a model, paths below the folder, and the sum of the files."""
    assert main(["inspect", str(models), "-c", "512"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert [line.split()[0] for line in lines[2:8]] == [
        "b.gguf", "cut.gguf", "deep/er/new.GGUF", "deep/split-00001-of-00003.gguf", "lost.gguf", "mmproj.gguf",
    ]  # fmt: skip
    assert "truncated" in lines[3]
    assert lines[0].split()[-2:] == ["total", "process"]
    assert any(line.startswith("6 files, ") for line in lines)


@pytest.mark.parametrize("command", [["inspect"], ["fit", "--ram", "1GiB", "--device", "none"]])
def test_the_folder_one_is_in(
    command: list[str], models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reasons say what is wrong and not the file's name again, when `.` is asked about, too; one file is one file."""
    monkeypatch.chdir(models)
    assert main([command[0], "--json", ".", *command[1:]]) in (0, 1)
    found = {row["path"]: row["reason"] for row in json.loads(capsys.readouterr().out)["files"]}
    assert found["./cut.gguf"].startswith("truncated: ")

    for path in models.glob("*.gguf"):
        if path.name != "b.gguf":
            path.unlink()
    assert main(["inspect", str(models / "*.gguf")]) == 0
    assert "\n1 file, " in capsys.readouterr().out


def test_limit(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What fits into so much main memory is told a model a row, by the same figures as for one model alone."""
    tiny_llama(models / "long.gguf", context_length=65536)
    with open_gguf(models / "long.gguf") as gguf:
        needed = predict_memory(gguf, Params(llama_build=LATEST)).process.needed_bytes

    rows = rows_of(
        capsys, str(models), "--as", "library", "--assert-fits", str(needed), code=4
    )  # new.GGUF has no prediction
    assert (rows["long.gguf"]["fits"], rows["long.gguf"]["needed_bytes"]) == (True, needed)
    assert {name: row["fits"] for name, row in rows.items() if row["fits"] is None} == dict.fromkeys(
        ("cut.gguf", "lost.gguf", "mmproj.gguf", "new.GGUF")
    )
    rows = rows_of(capsys, str(models), "--as", "library", "--assert-fits", str(needed - 1), code=1)
    assert [name for name, row in rows.items() if row["fits"] is False] == ["long.gguf"]
    two = [str(models / "b.gguf"), str(models / "long.gguf")]
    assert main(["inspect", *two, "--as", "library", "--assert-fits", f"{needed}"]) == 0
    assert "2 of 2 fit into" in capsys.readouterr().out


def test_server_and_types(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder is predicted as llama-server runs it, and as other file types, like one model."""
    rows = rows_of(capsys, str(models), "-c", "512", "--server", "--quantize", "q8_0,q4_0")
    assert main(["inspect", "--json", str(models / "b.gguf"), "-c", "512", "--server", "--quantize", "q8_0,q4_0"]) == 0
    alone = json.loads(capsys.readouterr().out)

    assert rows["b.gguf"]["compute_bytes"] == alone["memory"]["compute_bytes"]
    assert rows["b.gguf"]["process_bytes"] == alone["memory"]["process_bytes"]
    assert rows["b.gguf"]["quantized"] == alone["quantized"]
    assert rows["cut.gguf"]["quantized"] == []
    assert main(["inspect", str(models), "--quantize", "q4_0"]) == 0
    assert "Q4_0" in capsys.readouterr().out


def test_models_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a path all models that other programs keep here are listed, with what each would take."""
    without_environment(monkeypatch, tmp_path)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("LLAMA_CACHE", "HF_HUB_CACHE", "OLLAMA_MODELS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    assert main(["inspect"]) == 3
    assert "no model found on this machine" in capsys.readouterr().err

    ollama_model(tmp_path / "OLLAMA_MODELS", "registry.ollama.ai/library/tiny/1b")
    link = hub_file(tmp_path / "HF_HUB_CACHE", "owner/repo", "a.gguf")
    rows = rows_of(capsys, "-c", "512")
    assert [(row["store"], row["label"], row["n_ctx"]) for row in rows.values()] == [
        ("Hugging Face", "owner/repo/a.gguf", 512), ("Ollama", "ollama:tiny:1b", 512),
    ]  # fmt: skip
    assert rows["a.gguf"]["path"] == str(link)
    assert all(row["process_bytes"] for row in rows.values())
    assert main(["inspect", "--assert-fits", "1GiB"]) == 0
    assert "2 of 2 fit" in capsys.readouterr().out


def test_split_models_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A split model that a program keeps is one model, as in a folder: one row, its bytes counted once."""
    without_environment(monkeypatch, tmp_path)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("LLAMA_CACHE", "HF_HUB_CACHE", "OLLAMA_MODELS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    files = shards("big")
    for name, data in files.items():
        link = hub_file(tmp_path / "HF_HUB_CACHE", "owner/repo", f"q4/{name}")
        link.resolve().write_bytes(data)
    (row,) = rows_of(capsys, "-c", "512").values()

    assert row["label"] == "owner/repo/q4/big-00001-of-00003.gguf"
    assert (row["n_shards"], row["file_bytes"]) == (3, sum(map(len, files.values())))


def test_ollama_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`ollama:name` stands for the file wherever a model is named, and the flags of `fit` have its path."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    blob = ollama_model(tmp_path, "registry.ollama.ai/library/tiny/latest")

    assert main(["tensors", "ollama:tiny"]) == 0
    assert "token_embd.weight" in capsys.readouterr().out
    assert main(["fit", "ollama:tiny", "--ram", "1GiB", "--device", "none"]) == 0
    assert f"llama-server -m {blob} " in capsys.readouterr().out
    assert main(["inspect", "ollama:other"]) == 3
    assert "there: tiny" in capsys.readouterr().err


def test_refused_parameters(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What llama.cpp would refuse for some models is a reason in their rows; what it refuses for all is exit code 2."""
    rows = rows_of(capsys, str(models), "-ctv", "q8_0", "-fa", "off")
    assert "needs flash attention" in rows["b.gguf"]["reason"]
    assert rows["b.gguf"]["architecture"] == "llama"

    assert main(["inspect", str(models), "-np", "0"]) == 2
    assert "n_seq_max is 0" in capsys.readouterr().err


@pytest.mark.parametrize(("names", "code"), [(("cut.gguf", "lost.gguf"), 3), (("cut.gguf", "b.gguf"), 0)])
def test_exit_code(models: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], code: int) -> None:
    """The exit code is 3 only if no file was readable."""
    assert len(rows_of(capsys, *(str(models / name) for name in names), code=code)) == 2


def test_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without models is an error that names it."""
    assert main(["inspect", str(tmp_path)]) == 3
    assert f"{tmp_path}: no *.gguf file there" in capsys.readouterr().err


def test_what_is_named(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders, patterns and names may be mixed; nothing is listed twice, and a typing error is kept."""
    monkeypatch.chdir(models)

    assert find_models(["b.gguf", ".", "gone.gguf", "b.gguf"])[:2] == ["b.gguf", "./b.gguf"]
    assert find_models(["gone.gguf"]) == ["gone.gguf"]
    assert find_models(["*.gguf"]) == ["b.gguf", "cut.gguf", "lost.gguf", "mmproj.gguf"]
    assert find_models(["deep/*-of-*.gguf"]) == ["deep/split-00001-of-00003.gguf"]
    assert find_models(["deep/split-00003-of-00003.gguf"]) == ["deep/split-00003-of-00003.gguf"]
    assert find_models(["hf:me/tiny", "http://host/?"]) == ["hf:me/tiny", "http://host/?"]
    assert [names_several([text]) for text in (".", "*.gguf", "b.gguf", "gone", "hf:me/tiny", "http://host/?")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    (models / "odd[1].gguf").write_bytes(b"")
    assert not names_several(["odd[1].gguf"])


def test_remote_among_them(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Remote models stand beside local ones, and one that is not there is a row."""
    without_environment(monkeypatch, tmp_path)
    with serving(Site(files={"/far.gguf": model()})) as site:
        rows = rows_of(capsys, str(models / "b.gguf"), site.url + "/far.gguf", site.url + "/gone.gguf")

    assert rows["far.gguf"]["context_bytes"] == rows["b.gguf"]["context_bytes"]
    assert rows["gone.gguf"]["reason"] == "the server answered 404 Not Found: no such file"


def test_many(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A large folder is read by several processes, with the same rows in the same order."""
    for number in range(40):
        tiny_llama(tmp_path / f"{number:02}.gguf", block_count=2, context_length=1024 + number)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    several = rows_of(capsys, str(tmp_path))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    assert several == rows_of(capsys, str(tmp_path))
    assert [Path(name).stem for name in several] == [f"{number:02}" for number in range(40)]


@pytest.mark.skipif(sys.platform != "linux", reason="children that inherit what was patched")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
def test_whatever_ends_it_its_children_end(number: signal.Signals, tmp_path: Path) -> None:
    """A large folder is read by several processes, which do not wait for a parent that is gone."""
    for i in range(2 * FILES_PER_JOB):
        tiny_llama(tmp_path / f"{i}.gguf")
    code = (
        "import os, sys, time, ggufphys.commands.folder as folder; from ggufphys.cli import main\n"
        "os.cpu_count = lambda: 2\n"
        "folder.file_row = lambda *_: (os.write(1, b'%d\\n' % os.getpid()), time.sleep(20))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "inspect", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        children = [int(process.stdout.readline()) for _ in range(2)]
        process.send_signal(number)
        process.wait()
    ended = time.monotonic()
    while any(runs(child) for child in children):
        assert time.monotonic() - ended < 10, "the children go on"
        time.sleep(0.05)
