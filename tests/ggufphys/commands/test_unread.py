"""No flag is overlooked, whatever kind of file `inspect` is asked about, and whatever it is asked."""

import argparse
import json
from typing import Final

import pytest

from bench.clip.files import write_clip
from bench.clip.shape import ClipShape
from ggufphys.cli import main
from ggufphys.commands import inspect
from ggufphys.flags.parser import Parser
from ggufphys.gguf.writer import WriteValue
from tests.ggufphys.memory.attachments.adapter_files import write_control_vector, write_lora
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model

KINDS: Final = ("lora", "mmproj", "vector", "imatrix", "vocabulary")
# What a file that is no model has an answer to, or questions by themselves.
READ: Final = frozenset((
    "-h", "-m", "-mu", "-hf", "--json", "--html", "--no-cache", "--assert-fits", "--log", "--diff", "--template",
    "--sweep", "--quantize", "--imatrix", "--allow-requantize", "--leave-output-tensor", "--pure",
    "--output-tensor-type", "--token-embedding-type", "--tensor-type", "--csv", "--plot",
))  # fmt: skip
VALUES: Final = {
    "-ot": "a=CPU", "-otd": "a=CPU", "--budget": "20 in, 10 out, p95 1 s", "--on": "m2-air-16gb", "-dev": "CUDA0=1GiB",
    "--rpc": "localhost:50052=4GiB", "--llama-build": "b9000", "--lora-scaled": "a:1", "--control-vector-scaled": "a:1",
    "--n-outputs-max": "8", "-b": "64", "-ub": "64", "--spec-type": "draft-simple",
}  # fmt: skip


def _actions() -> list[argparse.Action]:
    parser = Parser(prog="ggufphys inspect")
    inspect.add_arguments(parser)
    return [a for a in parser._actions if a.option_strings and a.option_strings[0] not in READ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A file of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    imatrix: dict[str, WriteValue] = {"general.type": "imatrix", "imatrix.chunk_count": 1}
    paths = {
        "tiny": tiny_llama(folder / "tiny.gguf"),
        "lora": write_lora(folder / "lora.gguf", llama_tensors()),
        "mmproj": write_clip(folder / "mmproj.gguf", ClipShape(projector="pixtral")),
        "vector": write_control_vector(folder / "vector.gguf", 256, 2),
        "imatrix": write_model(folder / "imatrix.gguf", imatrix, llama_tensors()[:1]),
        "vocabulary": write_model(folder / "vocab.gguf", llama_metadata(), []),
    }
    return {name: str(path) for name, path in paths.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_no_models(kind: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each flag of `inspect` is answered, refused by its name, or named as one that changes nothing."""
    for action in _actions():
        flag = action.option_strings[0]
        value = VALUES.get(flag) or (str(next(iter(action.choices))) if action.choices else "1")
        words = ["inspect", files[kind], flag, *([] if action.nargs == 0 else [value])]
        code = main(words)
        out, err = capsys.readouterr()
        if kind == "mmproj" and flag in ("--image-max-tokens", "--mtmd-batch-max-tokens"):
            assert (code, flag in out + err) == (0, False), words
        elif code == 4:
            assert f"not a model that can be run by itself: {flag}: for models that can\n" in err, words
        else:
            assert (code, err) == (0, ""), words
            assert f"these flags change nothing here: {flag}\n" in out, words


def test_questions_by_themselves(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Neither is a flag overlooked that such a question does not read."""
    assert main(["inspect", files["tiny"], "--diff", files["lora"], "-c", "64", "--temp", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)
    assert err == "ggufphys: note: these flags change nothing here: -c --temp\n"
    assert main(["inspect", files["tiny"], "--diff", files["tiny"], "-c", "64", "--temp", "1"]) == 0
    assert capsys.readouterr().err == "ggufphys: note: these flags change nothing here: --temp\n"
