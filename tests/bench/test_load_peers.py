"""`bench load` beside llama-benchy: rounds in turn, the median of their ratios."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.load_peers import Row, as_text, main
from bench.paced import paced
from ggufphys.embedded import MODEL

WAIT_S, GAP_S = 0.05, 0.004
FAKE = """#!{python}
import json, sys, urllib.request
n = 4 if open({log!r}, "a").tell() else 3  # the first round loses one
asked = dict(zip(sys.argv[1:-1], sys.argv[2:]))
found = {{
    "pp_req_throughput": {{"values": [640.0, 320.0]}}, "ttfr": {{"values": [50.0, 100.0]}},
    "e2e_ttft": {{"mean": 50.0, "values": [50.0] * n}}, "tg_throughput": {{"mean": 1000.0}},
}}
body = {{"messages": [{{"content": "a b"}}], "stream": True, "max_tokens": 8}}
for _ in range(4):
    request = urllib.request.Request(asked["--base-url"] + "/chat/completions", json.dumps(body).encode())
    urllib.request.urlopen(request).read()
json.dump({{"benchmarks": [found]}}, open(asked["--save-result"], "w"))
open({log!r}, "a").write(json.dumps(sys.argv[1:]) + "\\n")
"""


def test_a_pace_that_drifts_moves_both_and_no_ratio() -> None:
    """Each client's figure is set beside the relay's of the same requests, so that a server's pace is in neither."""
    pace = (1.0, 2.0, 0.5)
    slower = tuple(3 * p for p in pace)
    row = Row(
        clients=1, figure="ttft_s", ours=tuple(1.02 * p for p in pace), ours_wire=pace,
        theirs=tuple(1.01 * p for p in slower), theirs_wire=slower,
    )  # fmt: skip
    assert row.ratio == pytest.approx(1.02 / 1.01)
    assert row.holds
    assert not replace(row, ours=tuple(1.05 * p for p in pace)).holds
    assert "1.0200" in as_text([row])


def test_both_are_asked_for_the_same_and_measured_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a server whose pace is known, first tokens and tokens a second are the truth, as llama-benchy defines them."""
    program, log = tmp_path / "llama-benchy", tmp_path / "log"
    program.write_text(FAKE.format(python=sys.executable, log=str(log)))
    program.chmod(0o755)
    with paced(wait_s=WAIT_S, gap_s=GAP_S) as url:
        flags = ("-c", "2", "-p", "32", "-g", "8", "--rounds", "2", "--runs", "2", "--json")
        main([url, "--peer", str(program), "--tokenizer", str(MODEL), *flags])
    out, err = capsys.readouterr()
    assert err == "llama-benchy has answers to 3 of 4 requests: the round is done again\n"
    rows = {row["figure"]: row for row in json.loads(out)["rows"]}
    assert rows["prompt_tokens"]["ours"] == rows["prompt_tokens"]["theirs"] == [32.0, 32.0]
    assert all(WAIT_S <= ttft_s < 2 * WAIT_S for ttft_s in rows["ttft_s"]["ours"])
    assert rows["prompt_tokens"]["ours_wire"] == [32.0, 32.0]
    assert rows["ttft_s"]["ours_off"] == pytest.approx(1, abs=0.1)  # what two sockets and threads take of 50 ms
    assert rows["decode_tok_per_s"]["ours_off"] == pytest.approx(1, abs=0.1)
    # Two at once have seven gaps each in the time of seven.
    assert all(rate == pytest.approx(2 / GAP_S, rel=0.5) for rate in rows["decode_tok_per_s"]["ours"])
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(asked) == 3  # a round that lost a request is done again
    assert all(
        " ".join(words).find("--pp 32 --tg 8 --exact-tg --no-cache --runs 2 --concurrency 2") >= 0 for words in asked
    )
