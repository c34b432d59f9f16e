"""`bench.serve_compare` says what it should of what it found, and its parts bear a server that we know."""

import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from bench.serve_compare import servers
from bench.serve_compare import speed as measured
from bench.serve_compare.crowds import flood, prefix
from bench.serve_compare.rows import GAP, NONE, RSS, TOK_PER_S, TTFT, Bar, Row
from bench.serve_compare.servers import Pair, Server
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


class Starts(Pair):
    """Servers that are only said to be started; `n` counts how often."""

    n = 0

    @contextmanager
    def started(self, *, n_slots: int, n_ctx_slot: int) -> Iterator[tuple[Server, Server]]:
        """Both, under addresses that no other start of them has."""
        del n_slots, n_ctx_slot
        Starts.n += 1
        yield Server(name="ours", url=f"ours {Starts.n}"), Server(name="theirs", url=f"theirs {Starts.n}")


def test_each_round_starts_both_anew(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A round has both servers started anew, who is first alternates, and the spread is of the rounds' own ratios.

    What each server did is told when it has, since one that starves may take minutes for its part.
    """
    asked: list[str] = []

    def one_round(server: Server, n_clients: int, load: Load, seed: int) -> Any:
        if seed >= 0:
            asked.append(f"{server.url}: {n_clients}")
        start = int(server.url[-1])
        tok_per_s = {"ours": (90, 220, 300)[start - 1], "theirs": (100, 200, 300)[start - 1]}[server.name]
        return SimpleNamespace(tok_per_s=tok_per_s, wall_s=2.5, ttft_s=SimpleNamespace(p50=1, p95=2))

    monkeypatch.setattr(measured, "one_round", one_round)
    monkeypatch.setattr(Starts, "n", 0)
    pair = Starts(model=MODEL, against="", threads=1, port=0)
    first, *_ = speed(pair, [1, 8], Load(n_prompt=8, n_predict=8, n_requests=4), rounds=3, busy=0)
    assert asked[:8] == [
        "ours 1: 1", "theirs 1: 1", "ours 1: 8", "theirs 1: 8", "theirs 2: 1", "ours 2: 1", "theirs 2: 8", "ours 2: 8",
    ]  # fmt: skip
    assert (first.ours, first.theirs, first.ratio, first.spread) == (220, 200, 1.0, "0.90-1.10")
    assert first.is_met
    told = capsys.readouterr().err.splitlines()
    assert told[4] == "1 client, round 2 of 3, theirs: 200.0 tok/s in 2.5 s"
    assert len(told) == len(asked) == 12


def test_what_ours_alone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--ours` goes to our server alone; all else both are told."""
    commands = list[list[str]]()

    @contextmanager
    def running(name: str, command: list[str], url: str) -> Iterator[Server]:
        commands.append(list(command))
        yield Server(name=name, url=url)

    monkeypatch.setattr(servers, "running", running)
    pair = Pair(model=MODEL, against="llama-server", threads=1, port=1, more=["--no-mmap"])
    with pair.started(n_slots=2, n_ctx_slot=64):
        ours, theirs = commands
    assert "--no-mmap" in ours
    assert "--no-mmap" not in theirs
    assert all(flag in command for command in commands for flag in ("-c", "-np", "-t"))


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
