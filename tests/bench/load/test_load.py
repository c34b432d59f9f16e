"""Load on a server: what is sent, what is counted, what is said of it."""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.load.address import base_url
from bench.load.client import Answer
from bench.load.goal import Goal
from bench.load.lengths import lengths
from bench.load.report import LoadReport
from bench.load.summary import Spread, Summary
from bench.paced import paced
from ggufphys.cli import main
from tests.bench.load.stub import Behaviour, serving


def load(capsys: pytest.CaptureFixture[str], behaviour: Behaviour, *flags: str, code: int = 0) -> dict[str, Any]:
    """`bench load` on a stub, as JSON."""
    with serving(behaviour) as url:
        assert main(["bench", "load", url, "--json", *flags]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_closed_loop(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """So many clients at once and no more, distinct prompts, tokens by the server's count, a line a request."""
    stub = Behaviour(wait_s=0.02)
    flags = ("-c", "1,4", "-n", "12", "-g", "8", "--jsonl", str(tmp_path / "requests"), "--csv", str(tmp_path / "csv"))
    one, four = load(capsys, stub, *flags, "--pid", str(os.getpid()))["levels"]

    assert (one["concurrency"], four["concurrency"], one["n_ok"], four["n_ok"]) == (1, 4, 12, 12)
    assert stub.most_in_flight == 4
    assert len({json.dumps(body["messages"]) for body in stub.bodies}) == len(stub.bodies) == 26
    assert all(body["max_tokens"] == 8 and body["stream"] and body["model"] == "stub" for body in stub.bodies)
    assert four["n_counted"] == 12
    assert four["tok_per_s"] == pytest.approx(96 / four["wall_s"])
    assert four["ttft_s"]["p50"] >= 0.02
    assert four["ttft_s"]["low"]["p50"] <= four["ttft_s"]["p50"] <= four["ttft_s"]["high"]["p50"]
    assert four["rss_bytes"] > 1 << 20
    assert len((tmp_path / "requests").read_text().splitlines()) == 24
    assert len((tmp_path / "csv").read_text().splitlines()) == 3


def test_each_field_is_documented() -> None:
    """Whoever reads the JSON finds every field of it in docs/load.md."""
    text = (Path(__file__).parents[3] / "docs" / "load.md").read_text()
    names = [field.name for kind in (LoadReport, Summary, Spread) for field in fields(kind)]

    assert len(names) > 40
    assert [name for name in names if f"`{name}`" not in text] == []


def test_prompts_become_as_long_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Two answers tell the words of a token and what a template adds: at two tokens a word and twenty, 40 are sent."""
    stub = Behaviour(template_tokens=20)
    load(capsys, stub, "-c", "1", "-n", "2", "-p", "100", "--shared", "40", "-g", "1", "--endpoint", "completions")
    long, short, *others = (body["prompt"].split() for body in stub.bodies)

    assert len(long) == 100
    assert len(short) == 25
    assert [len(words) for words in others] == [40, 40]
    assert others[0][:10] == others[1][:10]
    assert others[0][10:] != others[1][10:]


def test_one_answer_tells_how_many_words_a_token_is(capsys: pytest.CaptureFixture[str]) -> None:
    """With one warm-up the ratio is all that is known: where a word is two tokens, half as many are sent."""
    stub = Behaviour()
    load(capsys, stub, "-c", "1", "-n", "1", "-p", "100", "-g", "1", "--endpoint", "completions", "--warm-up", "1")

    assert [len(body["prompt"].split()) for body in stub.bodies] == [100, 50]


def test_a_known_pace_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """A server whose first token comes after 200 ms and the others 10 ms apart is measured near that, never faster."""
    with paced(wait_s=0.2, gap_s=0.01) as url:
        assert main(["bench", "load", url, "-c", "2", "-n", "4", "-p", "20", "-g", "21", "--json"]) == 0
    (level,) = json.loads(capsys.readouterr().out)["levels"]

    assert 0.2 <= level["ttft_s"]["p50"] < 0.3
    assert 0.4 <= level["e2e_s"]["p50"] < 0.6
    assert level["tpot_s"]["p50"] == pytest.approx(0.01, rel=0.3)


def test_an_open_loop(capsys: pytest.CaptureFixture[str]) -> None:
    """Requests come at their rate, whether answers do or not; goodput counts those that kept the goal."""
    level = load(capsys, Behaviour(wait_s=0.3), "--rate", "50", "-n", "10", "-g", "2", "--goal", "ttft=0.1")["levels"][
        0
    ]

    assert (level["rate_per_s"], level["concurrency"], level["n_ok"]) == (50, None, 10)
    assert level["wall_s"] < 10 * 0.3
    assert level["goodput_per_s"] == 0


def test_what_goes_wrong_is_counted_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    """Refusals and streams that end early are errors, and their tokens do not count."""
    level = load(capsys, Behaviour(refuse_every=3), "-c", "1", "-n", "6", "-g", "2", "--warm-up", "0")["levels"][0]
    assert (level["n_ok"], level["errors"]) == (4, {"http 503": 2})
    assert "busy" in level["error_details"]["http 503"]

    level = load(capsys, Behaviour(truncate=3), "-c", "1", "-n", "2", "-g", "9", "--warm-up", "0", code=1)["levels"][0]
    assert (level["n_ok"], level["errors"], level["tok_per_s"], level["ttft_s"]) == (0, {"truncated": 2}, 0.0, None)


def test_a_server_that_loads_its_model_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Requests are measured once it answers; that it was waited for is said."""
    with serving(Behaviour(loading=3)) as url:
        assert main(["bench", "load", url, "-c", "1", "-n", "2", "-g", "2", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["levels"][0]["errors"] == {}
    assert printed.err.count("the server is loading its model") == 1


def test_a_server_that_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    """Without usage the pieces that came are counted, and a note says so."""
    with serving(Behaviour(usage=False)) as url:
        assert main(["bench", "load", url, "-c", "2", "-n", "4", "-g", "5"]) == 0
    printed = capsys.readouterr()

    assert "4/4" in printed.out
    assert "did not count tokens of 4 answers" in printed.err


def test_a_server_that_knows_fewer_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """One that refuses `stream_options` is asked without it; others of our fields are left out where `--extra` says."""
    stub = Behaviour(unknown="stream_options", usage=False)
    level = load(capsys, stub, "-c", "1", "-n", "2", "-g", "3")["levels"][0]
    assert (level["n_ok"], level["errors"], level["n_counted"]) == (2, {}, 0)
    assert ["stream_options" in body for body in stub.bodies] == [True, False, False, False, False]

    stub = Behaviour(unknown="max_tokens", most_tokens=4)
    extra = '{"max_tokens": null, "max_completion_tokens": 4}'
    level = load(capsys, stub, "-c", "1", "-n", "2", "-g", "4", "--extra", extra)["levels"][0]
    assert (level["n_ok"], level["n_predict_mean"]) == (2, 4)
    assert all(body["max_completion_tokens"] == 4 for body in stub.bodies)


def test_other_lengths_than_asked_for_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Answers that end by themselves are other work, and so are prompts that no fit made as long as asked."""
    with serving(Behaviour(most_tokens=5)) as url:
        assert main(["bench", "load", url, "-c", "1,2", "-n", "4", "-g", "20", "--warm-up", "0"]) == 0
    err = capsys.readouterr().err
    assert "answers had 5 tokens on average where 20 were asked for: many servers go on with --extra" in err
    assert "prompts had 256 tokens on average where 128 were asked for" in err

    with serving(Behaviour()) as url:
        assert main(["bench", "load", url, "-c", "1", "-n", "2", "-g", "20"]) == 0
    assert "on average" not in capsys.readouterr().err


def test_clients_are_doubled_until_it_is_no_gain(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that answers any number at once is driven harder while tokens a second rise."""
    flags = ("-c", "1", "--until-saturation", "-n", "1", "-g", "1", "--extra", '{"temperature": 0}')
    stub = Behaviour(wait_s=0.05)
    levels = load(capsys, stub, *flags)["levels"]
    rates = [level["tok_per_s"] for level in levels]

    assert [level["concurrency"] for level in levels] == [2**i for i in range(len(levels))]
    assert len(levels) > 2
    assert rates[-1] < 1.05 * rates[-2]
    assert stub.bodies[0]["temperature"] == 0


def test_doubling_ends_where_nothing_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that refuses everything gains nothing by more clients."""
    flags = ("-c", "1", "--until-saturation", "-n", "2", "--warm-up", "0")

    assert len(load(capsys, Behaviour(refuse_every=1), *flags, code=1)["levels"]) == 1


def test_an_open_loop_lasts_as_long_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """With a duration requests come until it is over, and a level's time ends with its last answer."""
    (level,) = load(capsys, Behaviour(), "--rate", "200", "--duration", "0.4", "-g", "1")["levels"]

    assert level["n_ok"] > 40
    assert level["wall_s"] < 0.6


def test_stopped_before_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C keeps what has come: complete answers of the levels so far, exit code 130, and a note."""
    stub = Behaviour(wait_s=0.05)

    def press_within_the_second_level() -> None:
        while len(stub.bodies) < 15 + 4:  # two of these are answered then
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    pressed = threading.Thread(target=press_within_the_second_level, daemon=True)
    pressed.start()
    found = load(capsys, stub, "-c", "1,2", "-n", "15", "-g", "2", "--warm-up", "0", code=130)
    pressed.join()

    assert found["stopped"]
    assert [level["concurrency"] for level in found["levels"]] == [1, 2]
    assert found["levels"][0]["n_ok"] == 15
    assert 0 < found["levels"][1]["n_ok"] < 15
    assert "stopped before its end" in found["notes"][-1]


def test_the_server_is_gone_behind_the_load(capsys: pytest.CaptureFixture[str]) -> None:
    """A process that ends while it is watched costs its memory's figure, not the run."""
    flags = ("-c", "1", "-n", "8", "-g", "1", "--warm-up", "0")
    stub = Behaviour(wait_s=0.15)

    def end_behind_some_requests() -> None:
        while len(stub.bodies) < 5:
            time.sleep(0.01)
        watched.communicate("\n")

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as watched:
        threading.Thread(target=end_behind_some_requests).start()
        found = load(capsys, stub, *flags, "--pid", str(watched.pid))

    assert found["levels"][0]["rss_bytes"] > 1 << 20
    assert found["rss_after_bytes"] is None


def test_each_request_tells_its_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A level's figures follow from the lines of its requests: percentiles, rates, and how many kept the goal."""
    path = tmp_path / "requests.jsonl"
    flags = ("-c", "3", "-n", "30", "-g", "2..9", "--goal", "ttft=0.012,e2e=0.05", "--jsonl", str(path))
    found = load(capsys, Behaviour(wait_s=0.01, pause_s=0.004, refuse_every=7), *flags)
    (level,), lines = found["levels"], [json.loads(line) for line in path.read_text().splitlines()]
    ok = [line for line in lines if not line["error"]]
    kept = sum(line["ttft_s"] <= 0.012 and line["e2e_s"] <= 0.05 for line in ok)

    assert (level["n_ok"], level["errors"]["http 503"]) == (len(ok), len(lines) - len(ok))
    assert all(line["ttft_s"] == pytest.approx(line["pieces_s"][0], abs=1e-6) for line in ok)
    for name in ("ttft_s", "e2e_s", "tpot_s"):
        values = [line[name] for line in ok]
        assert level[name]["mean"] == pytest.approx(statistics.fmean(values))
        assert level[name]["p50"] == pytest.approx(statistics.median(values))
        assert level[name]["p95"] == pytest.approx(statistics.quantiles(values, n=20, method="inclusive")[18])
        assert level[name]["p99"] == pytest.approx(statistics.quantiles(values, n=100, method="inclusive")[98])
    gaps = [b - a for line in ok for a, b in pairwise(line["pieces_s"])]
    assert level["gap_s"]["p50"] == pytest.approx(statistics.median(gaps), abs=2e-6)
    assert level["tpot_s"]["mean"] == pytest.approx(
        statistics.fmean((line["e2e_s"] - line["ttft_s"]) / (line["n_predict"] - 1) for line in ok)
    )
    assert level["tok_per_s"] == pytest.approx(sum(line["n_predict"] for line in ok) / level["wall_s"])
    assert level["goodput_per_s"] == pytest.approx(kept / level["wall_s"])
    assert found["goal"] == {"ttft_s": 0.012, "e2e_s": 0.05}


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("localhost:8080", "http://localhost:8080/v1"),
        ("http://h:1/v1/", "http://h:1/v1"),
        ("https://h/api/v1/chat/completions", "https://h/api/v1"),
        ("http://h/v1beta/openai", "http://h/v1beta/openai"),
        ("[::1]:8080/prefix", "http://[::1]:8080/prefix/v1"),
    ],
)
def test_addresses(typed: str, found: str) -> None:
    """The API is found behind what a person types, with or without scheme, version and endpoint."""
    assert base_url(typed) == found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://127.0.0.1:9"], "is the server running"),
        (["ftp://host"], "expected a server's address"),
        (["http://127.0.0.1:99999"], "expected a server's address"),
        (["http://me:secret@host"], "give --api-key"),
        (["http://host?key=1"], "without anything behind its path"),
        (["http://127.0.0.1:9", "-c", "0"], "expected numbers above 0"),
        (["http://127.0.0.1:9", "-c", "1,"], "expected numbers above 0"),
        (["http://127.0.0.1:9", "--rate", "nan"], "expected numbers above 0"),
        (["http://127.0.0.1:9", "--duration", "nan"], "--duration nan: expected 0 or more"),
        (["http://127.0.0.1:9", "--timeout", "0"], "--timeout: '0': expected a number above 0"),
        (["http://127.0.0.1:9", "--jsonl", "/no/such/folder/x"], "there is no folder /no/such/folder"),
        (["http://127.0.0.1:9", "-p", "9..3"], "expected a length"),
        (["http://127.0.0.1:9", "--rate", "1", "--until-saturation"], "--until-saturation: not with --rate"),
        (["http://127.0.0.1:9", "--pid", "999999999"], "--pid 999999999"),
    ],
)
def test_no_load(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be done is said in a line, with exit code 2."""
    try:
        code = main(["bench", "load", *arguments])
    except SystemExit as stop:  # argparse's own way
        code = int(stop.code or 0)
    assert code == 2
    assert words in capsys.readouterr().err


def test_lengths() -> None:
    """A length, a range, and a lognormal distribution around its median."""
    rng = random.Random(0)

    assert {lengths("7").draw(rng) for _ in range(9)} == {7}
    assert {lengths("2..4").draw(rng) for _ in range(99)} == {2, 3, 4}
    drawn = sorted(lengths("lognormal:100:0.5").draw(rng) for _ in range(999))
    assert 90 < drawn[499] < 110
    assert drawn[0] < 50 < 200 < drawn[-1] <= 1600


def test_time_per_output_token() -> None:
    """As vLLM defines it: from the first token to the end, by the tokens behind the first."""
    answer = Answer(sent_s=1.0, n_prompt_wanted=1, n_predict_wanted=5, pieces=[1.5, 1.6, 2.0], n_predict=5, done_s=2.5)

    assert answer.ttft_s == 0.5
    assert answer.tpot_s == (1.5 - 0.5) / 4
    assert answer.gaps_s == pytest.approx([0.1, 0.4])
    assert Goal(tpot_s=0.25).holds(answer)
    assert not Goal(e2e_s=1.4).holds(answer)
    assert not Goal().holds(replace(answer, pieces=[]))


def test_comparing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ratios level by level; a condition that holds is exit code 1, and a file that is none of ours is told."""
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    level = {"concurrency": 1, "tok_per_s": 100.0, "ttft_s": {"p50": 0.1, "p95": 0.2, "p99": 0.3}, "gap_s": None}
    a.write_text(json.dumps({"levels": [level, {**level, "concurrency": 9}]}))
    b.write_text(json.dumps({"levels": [{**level, "tok_per_s": 90.0}]}))
    command = ["bench", "compare", str(a), str(b)]

    assert main([*command, "--json"]) == 0
    ratios = json.loads(capsys.readouterr().out)["ratios"]
    assert ratios == {"1 clients": {"tok_s": 0.9, "ttft_p50": 1.0, "ttft_p95": 1.0, "ttft_p99": 1.0}}
    assert main([*command, "--fail-if", "tok_s<0.95", "--fail-if", "ttft_p95>1.05"]) == 1
    assert "tok_s is 0.900" in capsys.readouterr().err
    b.write_text("[]")
    assert main(command) == 2
    assert "not what `ggufphys bench load --json` prints" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("of_b", "condition", "code"),
    [
        ({}, "tok_s<1", 0),
        ({}, "tok_s<=1", 1),
        ({}, "tok_s>1", 0),
        ({}, "tok_s>=1", 1),
        ({"tok_per_s": 101.0}, "tok_s>1", 1),
        ({"tok_per_s": 99.0}, "tok_s<1", 1),
        ({"tok_per_s": float("nan")}, "tok_s<1", 1),
        ({"ttft_s": None}, "ttft_p95>1.1", 1),
        ({"n_ok": 5}, "ok<1", 1),
        ({}, "ok<1", 0),
        ({}, "good_s<1", 1),
        ({"concurrency": 2}, "tok_s<1", 1),
    ],
)
def test_a_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], of_b: dict[str, Any], condition: str, code: int
) -> None:
    """Every sign is as it reads; what is missing, no number, or of a level that B lacks does not pass as good."""
    level = {"concurrency": 1, "tok_per_s": 100.0, "n_requests": 10, "n_ok": 10, "ttft_s": {"p95": 0.2}}
    other = {**level, "concurrency": 3}
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, levels in zip(paths, ([level, other], [{**level, **of_b}, other]), strict=True):
        path.write_text(json.dumps({"levels": levels}))

    assert main(["bench", "compare", *map(str, paths), "--fail-if", condition]) == code
    assert (code == 1) == ("to be" in (said := capsys.readouterr().err) or "cannot be told" in said)


def test_another_schema_is_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A gate does not read what a newer `bench load` means otherwise, and says which schema it found."""
    path = tmp_path / "newer.json"
    path.write_text('{"schema_version": 99, "levels": []}')
    assert main(["bench", "compare", str(path), str(path)]) == 2
    assert "newer.json: not what `ggufphys bench load --json` prints (of schema 99, expected" in capsys.readouterr().err
