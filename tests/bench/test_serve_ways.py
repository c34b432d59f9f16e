"""What ways to a client cost: which ways there are, and figures of each from a server that runs."""

import json
import sys
from typing import Any

import pytest

from bench.serve_ways import PATHS, WAYS, Cost, body_of, line_of, main, middle
from ggufphys.embedded import MODEL


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_bodies(name: str, stream: bool) -> None:
    """Each endpoint is asked in its own words, for as many tokens."""
    body = body_of(name, "some words", 7, stream=stream)

    assert body["stream"] is stream
    assert "some words" in json.dumps(body)
    assert 7 in body.values()


def test_line() -> None:
    """Both servers' figures, and the ratio of their speeds."""
    ours, theirs, slow = (
        Cost(way="chat, whole", clients=8, tok_per_s=speed, http_ms=0.5) for speed in (30.0, 20.0, 15.0)
    )

    assert middle([ours, theirs, slow]) == theirs
    assert line_of([[ours]]).endswith("8 at once:    30.0 tokens/s, HTTP 0.500 ms a token")
    line = line_of([[ours, theirs], [ours, theirs], [ours, slow]])
    assert line.endswith("checkout    20.0 tokens/s, HTTP 0.500 ms a token; ratio 1.500 (1.500 to 2.000)")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="threads' times are /proc's")
def test_all_ways(capsys: pytest.CaptureFixture[str]) -> None:
    """Every endpoint answers, whole and streamed."""
    options = ["--rounds", "1", "--turns", "1", "--predict", "8", "--port", "18194", "--json"]
    assert main([str(MODEL), *options]) == 0

    found: list[Any] = [json.loads(line)[0][0] for line in capsys.readouterr().out.splitlines()]
    assert [each["way"] for each in found] == WAYS
    assert all(each["tok_per_s"] > 0 and each["http_ms"] > 0 for each in found)
