"""Writing: the same seed the same bytes, special tensors special, and never half a file."""

import errno
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.synth.sparse import write_sparse
from bench.synth.values import special_values
from bench.synth.write import POOL_BYTES, write_file
from ggufphys.cli import main
from ggufphys.gguf import open_gguf
from ggufphys.synth import SynthPlan, plan_file, shape_named, shapes

ONE_LAYER = ["synth", "llama-110m", "--layers", "1"]


@pytest.fixture(scope="module")
def plan() -> SynthPlan:
    """One layer of the smallest shape: 22 MB."""
    return plan_file(shape_named("llama-110m").cut(1))


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_seed_same_bytes(plan: SynthPlan, tmp_path: Path) -> None:
    """The seed decides every byte, and another seed gives other weights."""
    path = tmp_path / "model.gguf"
    digests = []
    for seed in (0, 0, 1):
        write_file(plan, path, seed=seed)
        digests.append(digest(path))

    assert digests[0] == digests[1] != digests[2]


def test_length_and_progress(plan: SynthPlan, tmp_path: Path) -> None:
    """The file has the planned length, progress adds up to it, and nothing else is left."""
    path = tmp_path / "model.gguf"
    steps: list[int] = []
    write_file(plan, path, seed=0, progress=steps.append)

    assert path.stat().st_size == plan.file_bytes == sum(steps)
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


def test_no_row_twice(plan: SynthPlan, tmp_path: Path) -> None:
    """A tensor longer than its pool repeats blocks, but no row."""
    path = tmp_path / "model.gguf"
    write_file(plan, path, seed=0)
    with open_gguf(path) as gguf:
        tensor = gguf.tensors_by_name["token_embd.weight"]
        rows = bytes(gguf.tensor_data(tensor))
    row_bytes = len(rows) // tensor.ne[1]

    assert len(rows) > 2 * POOL_BYTES
    assert len({rows[i : i + row_bytes] for i in range(0, len(rows), row_bytes)}) == tensor.ne[1]


def test_norms_are_near_one(plan: SynthPlan, tmp_path: Path) -> None:
    """Norms scatter about 1, and no F32 tensor holds anything but finite numbers."""
    path = tmp_path / "model.gguf"
    write_file(plan, path, seed=0)
    with open_gguf(path) as gguf:
        floats = {
            t.name: np.frombuffer(bytes(gguf.tensor_data(t)), "<f4") for t in gguf.tensors if t.type_name == "F32"
        }

    assert {"blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"} == set(floats)
    for values in floats.values():
        assert np.abs(values - 1).max() < 0.3
        assert values.std() > 0.01


@pytest.mark.parametrize("name", shapes())
def test_special_values(name: str) -> None:
    """Every special tensor of every shape gets as many finite values as it has room for."""
    shape = shapes()[name]
    rng = np.random.default_rng(0)
    special = {}
    for tensor in plan_file(shape.cut(min(4, shape.n_layer))).tensors:
        values = special_values(shape, tensor.name, tensor.n_elements, rng) if tensor.ggml_type == 0 else None
        if values is not None:
            special[tensor.name] = values
            assert values.shape == (tensor.n_elements,)
            assert values.dtype == np.float32
            assert np.isfinite(values).all()

    assert "output_norm.weight" in special
    for part, low, high in (
        (".ssm_a", -16, -1),
        (".ssm_d", 1, 1),
        (".ssm_dt.bias", -7, -2),
        ("rope_freqs.weight", 1, 8),
    ):
        for tensor_name, values in special.items():
            if tensor_name.endswith(part):
                assert values.min() >= low
                assert values.max() <= high


def test_sparse(plan: SynthPlan, tmp_path: Path) -> None:
    """A sparse file has the full length, the header alone on disk, and reads as zeros behind it."""
    path = tmp_path / "model.gguf"
    write_sparse(plan, path)
    status = path.stat()

    assert status.st_size == plan.file_bytes
    assert status.st_blocks * 512 < len(plan.header) + (1 << 20)
    with open_gguf(path) as gguf:
        assert not any(gguf.tensor_data(gguf.tensors_by_name["blk.0.attn_norm.weight"]))


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what was written; as JSON it is one document, with no progress bar beside it."""
    path = tmp_path / "model.gguf"

    assert main([*ONE_LAYER, "-o", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: llama-110m, Q4_K_M, 31.66 M weights in 11 tensors, ")
    assert main([*ONE_LAYER, "-o", str(path), "--json", "--force", "--type", "q8_0"]) == 0
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert output.err == ""
    assert (report["file_type"], report["n_layer"], report["file_bytes"]) == ("Q8_0", 1, path.stat().st_size)
    assert main([*ONE_LAYER, "-o", str(path), "--quiet", "--force", "--sparse"]) == 0
    assert capsys.readouterr() == ("", "")


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    """The list has a line a shape, and its JSON a row a shape."""
    assert main(["synth", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(shapes())
    assert main(["synth", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["shapes"]
    assert [row["name"] for row in rows] == list(shapes())
    nbytes = {row["name"]: row["tensor_bytes"] for row in rows}
    assert nbytes["mistral-7b"] == {"Q4_K_M": 4_367_704_064}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synth"], "no shape given"),
        (["synth", "llama-110m"], "no file to write"),
        (["synth", "llama-111m", "-o", "x.gguf"], "no shape named 'llama-111m'"),
        (["synth", "llama-110m", "-o", "x.gguf", "--type", "Q9"], "'Q9'"),
        (["synth", "llama-110m", "-o", "x.gguf", "--layers", "13"], "llama-110m has 12 layers, asked for 13"),
        (["synth", "llama-110m", "-o", "x.gguf", "--seed", "-1"], "--seed: '-1' is not a count"),
        (["synth", "llama-110m", "-o", "nowhere/x.gguf"], "there is no folder nowhere"),
        (["synth", "llama-110m", "-o", "."], "is a folder"),
    ],
)
def test_usage_errors(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was asked wrongly is said, exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)

    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse's own way
        code = int(stop.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_overwriting_takes_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An existing file is left as it is, unless --force is given."""
    path = tmp_path / "model.gguf"
    path.write_text("precious")

    assert main([*ONE_LAYER, "-o", str(path), "--sparse"]) == 2
    assert "--force" in capsys.readouterr().err
    assert path.read_text() == "precious"
    assert main([*ONE_LAYER, "-o", str(path), "--sparse", "--force"]) == 0
    assert path.read_bytes()[:4] == b"GGUF"


def test_a_disk_without_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too little room is said before anything is written, with the figures."""
    monkeypatch.setattr("bench.synth.write.shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 20))

    assert main([*ONE_LAYER, "-o", str(tmp_path / "model.gguf")]) == 1
    message = capsys.readouterr().err
    assert "no room" in message
    assert "1.00 MiB free" in message
    assert list(tmp_path.iterdir()) == []


def fails_after(n_writes: int, error: BaseException) -> Callable[[int, memoryview], int]:
    """An os.write that raises once it was called so often."""
    original, calls = os.write, 0

    def failing(file: int, chunk: memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls > n_writes:
            raise error
        return original(file, chunk)

    return failing


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "model.gguf: No space left on device; no part of it is left",
        ),
        (OSError(errno.EFBIG, "File too large"), 1, "model.gguf: File too large; no part of it is left"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.EIO, "Input/output error"), 1, "model.gguf: Input/output error; no part of it is left"),
    ],
    ids=["full", "too-large", "interrupted", "broken"],
)
@pytest.mark.parametrize("there_before", [False, True], ids=["new", "old"])
def test_an_end_in_the_middle(
    error: BaseException,
    code: int,
    message: str,
    there_before: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A full disk, Ctrl-C or a broken disk in the middle leaves no partial file and the old one as it was."""
    path = tmp_path / "model.gguf"
    if there_before:
        path.write_text("precious")
    monkeypatch.setattr("bench.synth.sparse.os.write", fails_after(5, error))

    assert main([*ONE_LAYER, "-o", str(path), "--force"]) == code
    assert message in capsys.readouterr().err
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == ({"model.gguf": "precious"} if there_before else {})


def test_short_writes_are_continued(plan: SynthPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes only part of what it is given goes on with the rest."""
    write_file(plan, tmp_path / "whole.gguf", seed=0)
    original = os.write
    monkeypatch.setattr("bench.synth.sparse.os.write", lambda file, chunk: original(file, chunk[: 1 << 20]))
    write_file(plan, tmp_path / "pieces.gguf", seed=0)

    assert digest(tmp_path / "whole.gguf") == digest(tmp_path / "pieces.gguf")


def test_what_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    """A pipe or a device is written itself: no file takes its place, as root could have it of /dev/null."""
    pipe, got = tmp_path / "pipe", tmp_path / "got"
    os.mkfifo(pipe)
    with got.open("wb") as file, subprocess.Popen(["cat", pipe], stdout=file) as reader:
        assert main([*ONE_LAYER, "-q", "-o", str(pipe)]) == 0
        reader.wait()
    assert pipe.is_fifo()
    assert main([*ONE_LAYER, "-q", "-o", str(tmp_path / "file")]) == 0
    assert digest(got) == digest(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "got", "pipe"]
