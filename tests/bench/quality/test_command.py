"""`ggufphys bench quality`, as it is called."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.quality import readers
from bench.quality.windows import Windows
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.speed.kept import keep

TEXT = Path(__file__).parents[2] / "data" / "quality" / "text.txt"
SHORT = ("--text", str(TEXT), "-c", "64", "--chunks", "4", "--forget")


@pytest.fixture
def results(capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that runs the command with --json and gives the rows."""

    def run(*arguments: str) -> list[dict[str, Any]]:
        assert main(["bench", "quality", *arguments, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["schema_version"] == 1
        rows: list[dict[str, Any]] = document["results"]
        return rows

    return run


def test_rows_are_the_base_and_its_variants(results: Any) -> None:
    """Quants and types of cache made of the base stand behind it, each with sizes, quality and speed."""
    rows = results("F16", "--quantize", "Q8_0,10", "--cache-types", "q8_0,q4_0/f16", *SHORT)

    assert [(row["model"], row["file_type"], row["type_k"], row["type_v"]) for row in rows] == [
        ("F16", "F16", "f16", "f16"),
        ("Q8_0", "Q8_0", "f16", "f16"),
        ("Q2_K", "Q2_K", "f16", "f16"),
        ("F16, cache q8_0", "F16", "q8_0", "q8_0"),
        ("F16, cache q4_0/f16", "F16", "q4_0", "f16"),
    ]
    base, q8, q2, cache8, cache4 = rows
    assert (base["kl_mean"], base["top1"]) == (0, 1)
    assert 0 < q8["kl_mean"] < q2["kl_mean"] < q2["kl_p99"] <= q2["kl_max"]
    assert 0 < cache8["kl_mean"] < cache4["kl_mean"]
    assert q2["top1"] < q8["top1"] <= 1
    assert q2["bpw"] < q8["bpw"] < base["bpw"]
    assert cache8["predicted"]["context_bytes"] < base["predicted"]["context_bytes"]
    assert all(row["measured"]["decode_tok_per_s"] > 0 for row in rows)


def test_exact_base_tells_llama_cpps_error_from_the_quants(results: Any) -> None:
    """With the numpy engine as base, llama.cpp's run of the same file is a row, far closer than a quant's."""
    exact, same, quant = results("F16", "Q4_K_M", "--base-engine", "refengine", *SHORT)

    assert [row["engine"] for row in (exact, same, quant)] == ["refengine", "llama.cpp", "llama.cpp"]
    assert exact["file"] == same["file"]
    assert exact["predicted"]["prompt_tok_per_s"] is None  # rates are of llama.cpp's kernels
    assert abs(same["kl_mean"]) < quant["kl_mean"] / 100  # on 16 bits, it may be below 0: test_figures.py


def test_rates_that_cannot_be_used_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a calibration of another schema is kept, the table says once why no speed is predicted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep('{"schema_version": 1}')
    assert main(["bench", "quality", "F16", "Q8_0", *SHORT]) == 0

    out = capsys.readouterr().out
    assert out.count("no speed is predicted: a calibration of schema 1, expected") == 1
    assert "as predicted " not in out  # a column of nothing
    assert all(len(line) <= 80 for line in out.split("±: ")[1].splitlines() if "no speed" not in line)


def test_base_is_kept_and_read_again(results: Any, tmp_path: Path) -> None:
    """A second run takes the base's log-probabilities from the file, with the same figures and nothing measured."""
    kept = ("--base-file", str(tmp_path / "base"), *SHORT[:-1])
    first, again = results("F16", "Q8_0", *kept), results("F16", "Q8_0", *kept)

    assert again[0]["measured"] is None
    assert again[0]["perplexity"] == pytest.approx(first[0]["perplexity"], rel=1e-9)
    assert again[1]["kl_mean"] == pytest.approx(first[1]["kl_mean"], rel=1e-3)


@pytest.mark.parametrize("left", [0, 9, 30, 1000])
def test_a_damaged_base_is_made_again(
    left: int, results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A base of the cache that was cut off is no error of this run's; a file of one's own is told, and stays."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = ("F16", "Q8_0", "--text", str(TEXT), "-c", "64", "--chunks", "1")
    first = results(*words)
    (base,) = (tmp_path / "ggufphys").glob("base-*.logits")
    os.truncate(base, left)
    again = results(*words)
    assert again[1]["kl_mean"] == pytest.approx(first[1]["kl_mean"], rel=1e-3)
    os.truncate(base, left)
    own = base.rename(tmp_path / "own")
    capsys.readouterr()
    assert main(["bench", "quality", *words, "--base-file", str(own)]) == 1
    assert (own.stat().st_size, str(own) in capsys.readouterr().err) == (left, True)


def test_cache_of_bases_is_bounded(results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new base makes those of earlier runs go that would be too much with it; files of one's own stay."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own = tmp_path / "base-mine.logits"
    kept = ("--text", str(TEXT), "-c", "64", "--base-bytes", "1200k")
    results("F16", "Q8_0", *kept, "--chunks", "4")
    (first,) = (tmp_path / "ggufphys").glob("base-*.logits")
    results("F16", "Q8_0", *kept, "--chunks", "3")
    (second,) = (tmp_path / "ggufphys").glob("base-*.logits")
    results("F16", "Q8_0", *kept, "--chunks", "4", "--base-file", str(own))

    assert first != second
    assert second.exists()
    assert own.exists()


def test_a_model_that_is_removed_while_it_is_judged(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read of it in minutes is not lost: its sizes were looked at before."""
    path = tmp_path / "m.gguf"
    path.write_bytes(MODEL.read_bytes())
    logits = readers.LlamaReader.logits

    def removing(reader: readers.LlamaReader, windows: Windows) -> Iterator[Any]:
        path.unlink()
        yield from logits(reader, windows)

    monkeypatch.setattr(readers.LlamaReader, "logits", removing)
    (row,) = results(str(path), *SHORT[:-1])
    assert row["file_bytes"] == MODEL.stat().st_size


def test_base_that_takes_too_much_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The message says how much it would take and how many windows fit."""
    assert main(["bench", "quality", "F16", "Q8_0", *SHORT, "--base-bytes", "500k"]) == 2
    assert "give --chunks 2, or more --base-bytes" in capsys.readouterr().err
    assert main(["bench", "quality", "F16", "Q8_0", *SHORT, "--base-bytes", "1k"]) == 2
    assert "at most: give more --base-bytes" in capsys.readouterr().err  # not even one fits


def test_embedded_model_has_learned(results: Any) -> None:
    """On unseen text its perplexity is at most a quarter of the best unigram's, and --max-ratio says so."""
    (row,) = results("--chunks", "8", "--max-ratio", "0.25")

    assert row["ratio"] == pytest.approx(row["perplexity"] / row["unigram_perplexity"])
    assert row["kl_mean"] is None
    assert main(["bench", "quality", *SHORT[:-1], "--max-ratio", "0.0001"]) == 1


def test_arguments_are_checked_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no model, no text or no type is refused by name before the first model is run."""
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary").write_bytes(b"ab\xff")
    monkeypatch.setattr("bench.quality.command.judged_row", lambda *_, **__: pytest.fail("a model was run"))

    def said(code: int, *arguments: str) -> str:
        assert main(["bench", "quality", *arguments]) == code
        return capsys.readouterr().err

    assert "texts to judge are named behind --text" in said(3, str(MODEL), str(tmp_path / "text.txt"))
    assert "no such file, and no file type" in said(2, "Q9_9")
    assert "empty" in said(2, "--text", str(tmp_path / "empty.txt"))
    assert "binary: not UTF-8 (invalid start byte at byte 2)" in said(2, "--text", str(tmp_path / "binary"))
    assert "gone.txt" in said(3, "--text", str(tmp_path / "gone.txt"))
    assert "'q9_0' is no type of a cache" in said(2, "F16", "--cache-types", "q9_0")
    assert "unknown file type 'q9_0'" in said(2, "F16", "--quantize", "q8_0,q9_0")
    assert "--quantize names no type" in said(2, "F16", "--quantize", "")
    assert "--cache-types names no type" in said(2, "F16", "--cache-types", "")
    assert "--max-ratio nan: expected a number above 0" in said(2, "--max-ratio", "nan")
    assert "there is no folder" in said(2, "F16", "Q8_0", "--base-file", str(tmp_path / "gone" / "base"))
    with pytest.raises(SystemExit):
        main(["bench", "quality", "F16", "--base-bytes=-5"])
    assert "not a size: '-5'" in capsys.readouterr().err
    assert "expected --ctx-size of at least 4" in said(2, "F16", "-c", "3")
