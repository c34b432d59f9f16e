"""What README and docs/ show of `inspect`, `fit`, `tensors` and `verify` is what they print now, on files so named."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from bench.derive import derived
from bench.synth.sparse import write_sparse
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.gguf import open_gguf
from ggufphys.machine import host
from ggufphys.synth import plan_file, shape_named
from tests.test_commands_in_docs import FENCED, PAGES, SHAPES

COMMANDS: Final = ("inspect", "fit", "tensors", "metadata", "verify")
LONG: Final = ("fit models/", "verify")  # seconds each
NOT_COMPARED: Final = ("model.gguf", "MODEL")  # a broken file, and any
UNFINISHED: Final = "unfinished.gguf"


def shown() -> list[tuple[str, str, str]]:
    """Page, command line and output of each example that has one."""
    found = []
    for page in PAGES:
        for block in FENCED.findall(page.read_text()):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                line, _, output = part.partition("\n")
                words = line.split()
                if words[0] == "ggufphys" and words[1] in COMMANDS and output.strip() and words[2] not in NOT_COMPARED:
                    found.append((page.name, re.sub(r"\s+#\s.*", "", line), output))
    return [example for example in found if "-m MODEL" not in example[1]]


EXAMPLES: Final = [
    pytest.param(page, line, output, id=f"{page} {line}", marks=[pytest.mark.slow] * any(word in line for word in LONG))
    for page, line, output in shown()
]


def squeezed(line: str) -> str:
    """A line whatever the widths of its columns (what a page leaves out may be wider) and the last digits of errors."""
    return re.sub(r"\d\.\de-\d\d", "#", re.sub(r" {2,}|-{3,}", " ", line)).strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files lie that pages name, each made when an example wants it."""
    path = tmp_path_factory.mktemp("examples")
    (path / "models").mkdir()
    (path / "models" / UNFINISHED).write_bytes(b"GGUF\3\0\0\0")
    return path


def make(folder: Path, line: str) -> None:
    """Write the files that a command line names."""
    wanted = {folder / word: SHAPES[word] for word in line.split() if word in SHAPES}
    if "models/" in line:
        names = ("gemma-3-4b", "llama-3.1-8b", "qwen3-30b-a3b")
        wanted |= {folder / "models" / f"{name}-q4_k_m.gguf": name for name in names}
    for path, shape in wanted.items():
        if not path.exists():
            write_sparse(plan_file(shape_named(shape)), path)
    if "ggufphys/embedded/" in line:  # as in a clone
        (folder / "ggufphys" / "embedded").mkdir(parents=True, exist_ok=True)
        shutil.copy(MODEL, folder / "ggufphys" / "embedded")
    for file_type in re.findall(r" stdlib-6m-(\w+)\.gguf", line):
        shutil.copy(derived(file_type), folder / f"stdlib-6m-{file_type}.gguf")
    if "wrong.gguf" in line:
        shutil.copy(MODEL, folder / "wrong.gguf")
        with open_gguf(MODEL) as gguf:
            tensor = gguf.tensors_by_name["blk.3.ffn_up.weight"]
            start = gguf.shards[0].header.data_offset + tensor.offset
        weights = np.memmap(folder / "wrong.gguf", np.float16, "r+", start, tensor.n_elements)
        weights[:] = weights.astype(np.float32) * 1.01  # as the page says
        weights.flush()


@pytest.mark.parametrize(("page", "line", "output"), EXAMPLES)
def test_example(
    page: str, line: str, output: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line that a page shows is printed, on a processor like the page's, not calibrated; `...` are others."""
    if "verify" in line:
        pytest.importorskip("llama_cpp")
    make(folder, line)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(host, "cpu_features", lambda: frozenset({"avx2", "avx512"}))
    assert main(shlex.split(line)[1:]) in (0, 1)
    printed = {squeezed(text) for text in capsys.readouterr().out.splitlines()}
    lines = [squeezed(text) for text in output.splitlines() if not text.startswith(("...", UNFINISHED))]
    assert [text for text in lines if text not in printed] == []


def test_examples_are_found() -> None:
    """README's first example is among them, and those of several pages."""
    assert ("README.md", "ggufphys inspect mistral-7b.gguf -c 8192") in [(page, line) for page, line, _ in shown()]
    assert len({page for page, _, _ in shown()}) > 3
