"""Files made to mislead, or made wrongly by a program: every command answers, and nothing commands the terminal."""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.gguf import GGMLType
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, encode_header
from tests import archs
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model
from tests.load_changes import FLOATS, INTEGERS, Draft, random_change, read_draft

RED: Final = "\x1b[31m\x9b2J\u202eder"
COMMANDS: Final = (
    ("inspect", "--json"), ("inspect",), ("inspect", "--force", "--json", "--explain", "--costs"),
    ("inspect", "--json", "--sweep", "ctx=512..1k,np=1,3"), ("inspect", "--json", "--quantize", "Q4_K_M"),
    ("fit", "--json", "--memory", "1GiB,512MiB"), ("tensors", "--json"), ("inspect", "--force", "--html"),
    ("inspect", "--json", "-ctk", "q8_0", "-ctv", "q4_0", "-c", "100", "-fa", "on"), ("tensors",),
    ("metadata",), ("metadata", "--json"), ("inspect", "--json", "--diff", str(MODEL)),
)  # fmt: skip
NAMES: Final = ("\x1b[2J{}", "x\ny", "blk.999999999999.attn_q.weight", "blk.-1.attn_q.weight", "{0}{0}{0}", "blk.1.")
INTS: Final = (0, 1, -1, 255, 513, 1 << 16, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1)
NUMBERS: Final = (0.0, -1.0, 1e-45, 1e30, float("nan"), float("inf"))
TEXTS: Final = ("", RED, "a\nb", "\x00", "a" * 5000)


def answer(*words: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def an_end(asked: str) -> Iterator[None]:
    """What is asked fails by its name where it would go on for ever (on Windows it goes on)."""
    if sys.platform == "win32":
        yield
        return

    def ended(*_: object) -> None:
        pytest.fail(f"{asked}: no answer within a minute")

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def unseen(text: str) -> list[str]:
    """What a terminal would not show."""
    return [c for c in text if not c.isprintable() and c not in "\n\t"]


def strict(text: str) -> Any:
    """JSON as the standard has it, without NaN and Infinity."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))


def odd(draft: Draft, rng: random.Random) -> Draft:
    """A key's value, a tensor's size or its name is what nobody would write."""
    if rng.random() < 0.3:
        return random_change(draft, rng).draft
    tensor = rng.choice(draft.tensors)
    if rng.random() < 0.3:
        return _with(draft, tensor, replace(tensor, name=rng.choice(NAMES).format(tensor.name)))
    if rng.random() < 0.3:
        axis = rng.randrange(len(tensor.ne))
        n = rng.choice((0, 1, 32, 1 << 20, 256 * tensor.ne[axis]))
        return _with(draft, tensor, replace(tensor, ne=(*tensor.ne[:axis], n, *tensor.ne[axis + 1 :])))
    key = rng.choice(list(draft.metadata))
    old = draft.metadata[key]
    value = old.value
    if isinstance(value, tuple):
        value = rng.choice(((), (*value, *value), (_odd(old.value_type, rng),) * len(value)))
    else:
        value = _odd(old.value_type, rng)
    return replace(draft, metadata={**draft.metadata, key: Typed(value, old.value_type)})


def _with(draft: Draft, old: TensorSpec, new: TensorSpec) -> Draft:
    return replace(draft, tensors=tuple(new if tensor is old else tensor for tensor in draft.tensors))


def _odd(kind: ValueType, rng: random.Random) -> int | float | bool | str:
    if kind is ValueType.STRING:
        return rng.choice(TEXTS)
    if kind is ValueType.BOOL:
        return rng.random() < 0.5
    if kind in FLOATS:
        return rng.choice(NUMBERS)
    low, high = INTEGERS[kind]
    return min(max(rng.choice(INTS), low), high)


def check_seeds(seeds: range, folder: Path) -> None:
    """Models made odd, each asked one question."""
    names = sorted(archs.records())
    for seed in seeds:
        rng = random.Random(seed)
        name, path = rng.choice(names), folder / "m.gguf"
        path.write_bytes(encode_header(archs.models()[name].metadata, list(archs.records()[name].tensors)))
        draft = read_draft(path)
        for _ in range(rng.choice((1, 1, 2, 3))):
            draft = odd(draft, rng)
        header = encode_header(draft.metadata, draft.tensors)
        path.write_bytes(header[: rng.randrange(len(header))] if rng.random() < 0.1 else header)
        command, *flags = rng.choice(COMMANDS)
        asked = f"seed {seed}: {name}, {command} {' '.join(flags)}"
        started = time.process_time()
        with an_end(asked):
            code, out, err = answer(command, str(path), *flags)
        said = f"{asked}: {code}, {err[:300]}"
        assert code in (0, 1, 2, 3, 4), said
        assert bool(err) or code in (0, 1), said
        assert unseen(out + err) == [], said
        assert len(err) < 25_000, said
        if "--json" in flags and out:
            strict(out)
        # not a benchmark: a bound that only a runaway loop would break
        assert time.process_time() - started < 10, said


def test_odd_models(tmp_path: Path) -> None:
    """120 models with an odd key, name, shape or end: each command answers in words, with an exit code of its own."""
    check_seeds(range(120), tmp_path)


@pytest.mark.slow
def test_many_odd_models(tmp_path: Path) -> None:
    """The same 5,000 times."""
    check_seeds(range(120, 5120), tmp_path)


INDEXED: Final = sorted(
    name for name, model in archs.models().items() if any("indexer.key_length" in key for key in model.metadata)
)


@pytest.mark.parametrize("name", INDEXED)
def test_indexers_with_heads_of_nothing(name: str, tmp_path: Path) -> None:
    """The matrix that rotates an indexer's keys is looked for by doubling, as far as it divides a head: 0 for ever."""
    path = tmp_path / "m.gguf"
    tensors = list(archs.records()[name].tensors)
    path.write_bytes(encode_header(archs.models()[name].metadata, tensors))
    metadata = read_draft(path).metadata
    (key,) = (key for key in metadata if key.endswith("attention.indexer.key_length"))
    path.write_bytes(encode_header({**metadata, key: replace(metadata[key], value=0)}, tensors))
    for flags in ((), ("-ctk", "q8_0", "-fa", "on")):
        with an_end(name):
            code, _, err = answer("inspect", str(path), "--force", "--json", *flags)
        assert code in (0, 2, 3), err
        assert bool(err) == (code != 0)


def test_names_command_no_terminal(tmp_path: Path) -> None:
    """Escapes and marks of direction in names are shown as such in every report, a line's end too; JSON keeps them."""
    metadata = llama_metadata() | {"general.name": f"{RED}\nfits: all", "general.size_label": RED}
    tensors = [*llama_tensors(), TensorSpec(f"blk.0.{RED}\nfits", (32,), GGMLType.F32)]
    path = str(write_model(tmp_path / "m.gguf", metadata, tensors))
    plain = str(tiny_llama(tmp_path / "plain.gguf"))
    for words in (
        ("inspect", path), ("inspect", path, "--force", "--explain"), ("tensors", path),
        ("inspect", plain, "--diff", path), ("inspect", path, "--force", "--html"),
        ("inspect", str(tmp_path), "--force"), ("fit", path, "--memory", "1GiB"),
    ):  # fmt: skip
        _, out, err = answer(*words)
        assert unseen(out + err) == [], words
        assert "--html" in words or not any(line.startswith("fits") for line in (out + err).splitlines()), words
    code, out, _ = answer("inspect", path, "--json")
    assert code == 3
    assert unseen(out) == []
    assert strict(out)["model"]["name"] == f"{RED}\nfits: all"


def test_reasons_of_many_layers_are_said_once(tmp_path: Path) -> None:
    """What is wrong in every layer alike takes one line that counts the layers, and a long message is cut."""
    metadata = llama_metadata() | {"llama.block_count": 40, "llama.feed_forward_length": 777}
    path = str(write_model(tmp_path / "m.gguf", metadata, llama_tensors(n_layer=40)))
    code, out, err = answer("fit", path, "--memory", "1GiB")

    assert (code, out) == (3, "")
    assert "blk.0.ffn_up.weight and 39 layers more: the tensor has another shape" in err
    assert len(err.splitlines()) == 4
    code, out, _ = answer("inspect", path, "--json")
    assert len(strict(out)["loads"]["reasons"]) == 120

    unknown = str(write_model(tmp_path / "u.gguf", {"general.architecture": "a" * 5000}, llama_tensors()))
    code, _, err = answer("inspect", unknown)
    assert code == 4
    assert len(err) < 1500


def test_names_of_files_that_are_no_text(tmp_path: Path) -> None:
    """A path with bytes that are not UTF-8 is reported and read back from JSON, on terminals of any encoding."""
    path = os.fsencode(tmp_path) + b"/\xffname \xc3\xa9.gguf"
    tiny_llama(tmp_path / "m.gguf").rename(os.fsdecode(path))
    for encoding in ("utf-8", "ascii"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        words = [sys.executable, "-m", "ggufphys", "inspect"]
        text = subprocess.run([*words, path], capture_output=True, env=environment, check=True).stdout.decode()
        assert "\\udcffname" in text
        out = subprocess.run([*words, "--json", path], capture_output=True, env=environment, check=True).stdout
        assert os.fsencode(strict(out.decode())["model"]["path"]) == path
