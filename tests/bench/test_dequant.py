"""bench.dequant: the table holds together; no time is asserted."""

import json

import pytest

from bench import dequant
from refengine.dequant.table import FORMATS


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One row a type, ratios that are those of the rates, none where gguf has no code."""
    assert dequant.main(["--json", "--weights", "8192", "--repetitions", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["type"]: row for row in document["rows"]}

    assert [t.name for t in FORMATS] == list(rows)
    assert rows["Q8_K"]["gguf_bytes_per_s"] is rows["Q8_K"]["ours_over_gguf"] is None
    for row in rows.values():
        assert row["ours_over_ggml"] == pytest.approx(row["ours_bytes_per_s"] / row["ggml_bytes_per_s"])
        if row["gguf_bytes_per_s"]:
            assert row["ours_over_gguf"] == pytest.approx(row["ours_bytes_per_s"] / row["gguf_bytes_per_s"])


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The table has a line a type, a header and a median."""
    assert dequant.main(["--weights", "4096", "--repetitions", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert 3 + len(FORMATS) == len(lines)
    assert lines[-1].startswith("median")
