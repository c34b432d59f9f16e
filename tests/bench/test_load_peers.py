"""`bench load` beside llama-benchy: rounds in turn, the median of their ratios."""

import json
import sys
from pathlib import Path

import pytest

from bench.load_peers import Row, as_text, main
from bench.paced import paced
from ggufphys.embedded import MODEL

WAIT_S, GAP_S = 0.05, 0.004
FAKE = """#!{python}
import json, sys
asked = dict(zip(sys.argv[1:-1], sys.argv[2:]))
found = {{
    "pp_req_throughput": {{"values": [640.0, 320.0]}}, "ttfr": {{"values": [50.0, 100.0]}},
    "e2e_ttft": {{"mean": 50.0}}, "tg_throughput": {{"mean": 1000.0}},
}}
json.dump({{"benchmarks": [found]}}, open(asked["--save-result"], "w"))
open({log!r}, "a").write(json.dumps(sys.argv[1:]) + "\\n")
"""


def test_a_pace_that_drifts_moves_both_and_no_ratio() -> None:
    """What is compared is the median of the rounds' ratios, and the table says how far rounds disagree."""
    pace = (1.0, 2.0, 0.5)
    row = Row(clients=1, figure="ttft_s", ours=tuple(1.01 * p for p in pace), theirs=pace)
    assert row.ratio == pytest.approx(1.01)
    assert row.holds
    off = Row(clients=1, figure="ttft_s", ours=(0.9, 1.05, 1.1), theirs=(1.0, 1.0, 1.0))
    assert not off.holds
    assert "0.900 to 1.100" in as_text([off])


def test_both_are_asked_for_the_same_and_measured_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a server whose pace is known, first tokens and tokens a second are the truth, as llama-benchy defines them."""
    program, log = tmp_path / "llama-benchy", tmp_path / "log"
    program.write_text(FAKE.format(python=sys.executable, log=str(log)))
    program.chmod(0o755)
    with paced(wait_s=WAIT_S, gap_s=GAP_S) as url:
        flags = ("-c", "2", "-p", "32", "-g", "8", "--rounds", "2", "--runs", "2", "--json")
        main([url, "--peer", str(program), "--tokenizer", str(MODEL), *flags])
    rows = {row["figure"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["prompt_tokens"]["ours"] == rows["prompt_tokens"]["theirs"] == [32.0, 32.0]
    assert all(WAIT_S <= ttft_s < 2 * WAIT_S for ttft_s in rows["ttft_s"]["ours"])
    # Two at once have seven gaps each in the time of seven.
    assert all(rate == pytest.approx(2 / GAP_S, rel=0.5) for rate in rows["decode_tok_per_s"]["ours"])
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(asked) == 2
    assert all(
        " ".join(words).find("--pp 32 --tg 8 --exact-tg --no-cache --runs 2 --concurrency 2") >= 0 for words in asked
    )
