"""`bench.serve_compare` says what it should of what it found, and its parts bear a server that we know."""

import math
import socket

import pytest

from bench.serve_compare.crowds import flood, prefix
from bench.serve_compare.rows import GAP, NONE, RSS, TOK_PER_S, TTFT, Bar, Row
from bench.serve_compare.servers import Pair
from bench.serve_compare.speed import Load, speed
from ggufphys.embedded import MODEL


@pytest.mark.parametrize(
    ("bar", "ours", "theirs", "met"),
    [
        (TOK_PER_S, 100, 100, True), (TOK_PER_S, 99, 100, False), (TTFT, 1.05, 1, True), (TTFT, 1.06, 1, False),
        (GAP, 1, 3.1, True), (GAP, 1, 2.9, False), (NONE, 0, 5, True), (NONE, 1, math.nan, False),
        (RSS, 1.02, math.nan, True),
    ],
)  # fmt: skip
def test_bars(bar: Bar, ours: float, theirs: float, met: bool) -> None:
    """A bar is met or not, by theirs or by itself."""
    row = Row(level="8 clients", figure="figure", ours=ours, theirs=theirs, bar=bar)
    assert row.is_met is met
    assert str(row).rstrip().endswith("yes" if met else "NO")


def test_no_stranger_is_measured() -> None:
    """A port at which something listens already is refused: whatever it is would be taken for the server started."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        started = Pair(model=MODEL, against="", threads=1, port=port).started_alone(n_slots=1, n_ctx_slot=64, port=port)
        with pytest.raises(RuntimeError, match="something else listens"), started:
            pass


@pytest.mark.slow
def test_a_server_beside_itself() -> None:
    """Beside a server of our own each part gives its rows, nothing is lost and a common prefix is evaluated once."""
    against = Pair(model=MODEL, against="", threads=2, port=18480)
    with against.started_alone(n_slots=16, n_ctx_slot=512, port=18490) as theirs:
        pair = Pair(model=MODEL, against=theirs.url, threads=2, port=18480)
        rows = list(speed(pair, [1, 2], Load(n_prompt=8, n_predict=8, n_requests=4), rounds=1, busy=0))
        assert [row.figure for row in rows] == ["tok/s", "TTFT p50, s", "TTFT p95, s"] * 2
        assert all(row.ours > 0 and row.theirs > 0 for row in rows)
        (shared,) = prefix(pair, 100)
        assert shared.is_met
        lost = {row.figure: row for row in flood(pair, 20)}
        assert lost["lost"].ours == lost["lost"].theirs == 0
