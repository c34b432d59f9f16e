"""Flags that would be overlooked, and numbers that are none."""

import argparse
import contextlib
import gettext
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ggufphys.cli import main
from ggufphys.flags.numbers import above_zero, at_least, count, counts, integer, seconds
from ggufphys.flags.parser import Parser
from tests.ggufphys.models import tiny_llama


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and stderr of a command line; argparse's own exits included."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("verify MODEL --threshold 1", "--threshold: for --trace, which is not given"),
        ("verify MODEL --logits --threshold 1", "--threshold: for --trace, which is not given"),
        ("verify MODEL --logits --against MODEL -fa off", "--flash-attn and --against: for --trace"),
        ("verify MODEL --trace", "--trace: for --logits, which is not given"),
        ("verify MODEL --decode-tokens 3 --timeout 3", "--decode-tokens and --timeout: for --logits"),
        ("verify MODEL -ngl 3", "-ngl: for --logits, which is not given"),
        ("verify MODEL --logits -ngl 3", "what goes to which device, and there is none"),
        ("verify --logits", "--logits: for MODEL, which is not given"),
        ("verify --all", "--all: for MODEL, which is not given"),
        ("verify MODEL --logits --types F32", "--types: not with --logits"),
        ("bench speed MODEL --calibrate --calibration rates.json", "--calibration: not with --calibrate"),
        ("bench load http://127.0.0.1:9 -c 2 --rate 3", "--concurrency: not with --rate"),
        ("bench quality F16 --base-bytes 1GiB --suite x.jsonl", "--base-bytes: not with --suite"),
        ("bench quality F16 --base-file x", "--base-file: nothing is compared with a base"),
        ("bench hypotheses --rules-only --model MODEL", "--model: not with --rules-only"),
        ("synth llama-110m -o new.gguf --sparse --seed 3", "--seed: not with --sparse"),
        ("synth --list --layers 3", "--layers: not with --list"),
        ("measure MODEL --amx", "--amx: it is the installed llama.cpp that runs"),
        ("inspect MODEL MODEL --depth 5", "--prefill, --depth, --batch and --budget are about one run"),
        ("inspect MODEL --sweep ctx=1k --batch 2", "--prefill, --depth, --batch and --budget are about one run"),
        ("inspect MODEL --html --csv", "--csv: for --sweep, which is not given"),
    ],
)
def test_no_flag_is_overlooked(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag that would change nothing, for want of another or beside another, is an error that says so."""
    if not line.startswith("inspect"):
        pytest.importorskip("llama_cpp")
    monkeypatch.chdir(tmp_path)
    model = tiny_llama(tmp_path / "m.gguf")
    code, err = said(capsys, *(model if word == "MODEL" else word for word in line.split()))
    assert code == 2, err
    assert message in err


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        ("-ts 1,2 -sm row", "-ts, -sm: nothing changes by that, since there is no device"),
        ("-ngld 3", "-ngld: nothing changes by that, since there is no draft model (-md)"),
        ("--image-max-tokens 3", "--image-max-tokens: nothing changes by that, since there is no --mmproj"),
        ("-c 1k -fitt 100", "-fitt: nothing changes by that, since -c says how long the context is"),
        ("-fit off -fitc 1k", "-fitc: nothing changes by that, since --fit is off"),
        ("--as library -fit on", "-fit: nothing changes by that, since --as library has no server"),
        ("-dev A=8GiB,B=8GiB -ts 1,2,3", "-ts: 3 proportions for 2 devices: the first 2 count"),
        ("-dev A=8GiB,B=8GiB -mg 1", "-mg: nothing changes by that, since split mode layer divides"),
    ],
)
def test_flags_that_llama_cpp_overlooks_are_noted(
    flags: str, note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of llama.cpp's own flags, which a pasted line may have, a note says that they change nothing; without, none."""
    path = str(tiny_llama(tmp_path / "m.gguf"))
    assert main(["inspect", path, *flags.split()]) == 0
    assert note in capsys.readouterr().out
    assert main(["inspect", path, "-dev", "A=8GiB,B=8GiB", "-ts", "1,2", "-sm", "layer"]) == 0
    assert "nothing changes" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "text"),
    [(kind, text) for kind in (count, integer, at_least(1), counts(1), above_zero, seconds)
     for text in ("", "nan", "1e400", "٣", "1_0", "x", "-", " 1 2")],
)  # fmt: skip
def test_what_is_no_number(kind: Callable[[str], Any], text: str) -> None:
    """Texts that Python takes for numbers in part, or that no count can be, are refused with what was expected."""
    with pytest.raises(argparse.ArgumentTypeError, match="expected|whole number"):
        kind(text)


def test_seconds_that_no_clock_counts() -> None:
    """Waiting for 1e300 seconds is refused before anybody waits: the system counts milliseconds in 31 bits."""
    assert seconds("0.5") == 0.5
    with pytest.raises(argparse.ArgumentTypeError, match="1,000,000 at most"):
        seconds("1e300")


def test_an_empty_name_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """`bench report "$RESULTS"` with RESULTS unset is an error, not the results of the current folder."""
    for words in (["report", ""], ["report", "--markdown", ""], ["compare", "", ""]):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", *words])
        assert "the name is empty" in capsys.readouterr().err


def test_numbers() -> None:
    """Counts may have k and m behind them, whole numbers a sign; lists have no doubles, and may be empty if told so."""
    assert [count("8k"), count("1M"), integer("-3"), at_least(2)("2")] == [8192, 1 << 20, -3, 2]
    assert counts(0)("0,1k,0") == (0, 1024)
    assert counts(0, or_none=True)("") == ()
    with pytest.raises(argparse.ArgumentTypeError, match="at least 2"):
        counts(2)("4,1")


def test_other_parsers_are_translated(capsys: pytest.CaptureFixture[str]) -> None:
    """Only what our parser says is not translated: argparse is left as it was, by errors and --help, too."""
    for words in ([], ["--nothing"], ["--help"]):
        with contextlib.suppress(SystemExit):
            Parser(prog="ggufphys").parse_args(words)
        assert vars(argparse)["_"] is gettext.gettext

    said = capsys.readouterr()
    assert "usage: ggufphys" in said.out
    assert "--nothing" in said.err


def test_a_second_model_is_no_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file too many is not taken for a flag that was meant as a file."""
    path = tiny_llama(tmp_path / "m.gguf")
    code, err = said(capsys, "tensors", path, path)
    assert (code, "./" in err) == (2, False)


def test_two_hyphens_as_a_value() -> None:
    """`--flag=--` is that value, of one word, where argparse made an empty list of it."""
    parser = Parser()
    parser.add_argument("--key")
    parser.add_argument("--number", type=integer)

    assert parser.parse_args(["--key=--"]).key == "--"
    with pytest.raises(SystemExit):
        parser.parse_args(["--number=--"])
