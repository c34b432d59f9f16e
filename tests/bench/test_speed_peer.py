"""Our measurement of speed beside llama-bench's: rounds in turn, the median of their ratios."""

import json
import sys
from pathlib import Path

import pytest

from bench.speed_peer import as_text, main, row_of
from ggufphys.embedded import MODEL

FAKE = """#!{python}
import json, sys
sys.stdout.write(json.dumps([{{"avg_ts": 100.0, "asked": sys.argv[1:]}}]))
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
"""


def test_a_pace_that_drifts_moves_both_and_no_ratio() -> None:
    """What is compared is the median of the rounds' ratios, not the ratio of medians from different minutes."""
    pace = (1.0, 2.0, 0.5, 1.5, 3.0)
    row = row_of(2, "decode 0", [(101 * p, 100 * p) for p in pace])
    assert row.ratio == pytest.approx(1.01)
    assert row.low == pytest.approx(1.01)
    assert row.high == pytest.approx(1.01)
    assert row.holds
    assert not row_of(2, "decode 0", [(104.0, 100.0)] * 3).holds


def test_the_interval_shows_how_far_rounds_disagree() -> None:
    """Rounds that disagree leave an interval that has all that the median may be."""
    row = row_of(1, "prefill 512", [(r, 1.0) for r in (0.8, 0.9, 1.0, 1.1, 1.2)])
    assert (row.low, row.ratio, row.high) == (0.8, 1.0, 1.2)
    assert "0.800 to 1.200" in as_text([row])


def test_both_are_asked_for_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """llama-bench gets the prompt, tokens and threads that our own process measures, a whole process a round."""
    program, log = tmp_path / "llama-bench", tmp_path / "log"
    program.write_text(FAKE.format(python=sys.executable, log=str(log)))
    program.chmod(0o755)
    code = main(
        [str(MODEL), "--llama-bench", str(program), "-t", "1", "-p", "16", "-n", "8", "--rounds", "2", "--json"]
    )
    document = json.loads(capsys.readouterr().out)
    assert code == 1  # no machine reads this model at 100 tokens a second
    assert [row["quantity"] for row in document["rows"]] == ["prefill 16", "decode 0"]
    assert all(row["theirs"] == 100.0 and row["ours"] > 0 for row in document["rows"])
    asked = [" ".join(json.loads(line)) for line in log.read_text().splitlines()]
    assert len(asked) == 4
    assert sum("-p 16 -n 0" in line for line in asked) == 2
    assert sum("-p 0 -n 8 -d 0" in line for line in asked) == 2
    assert all("-t 1" in line and "-r 4" in line for line in asked)
