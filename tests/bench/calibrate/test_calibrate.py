"""Calibrating for real, and a model timed beside what was predicted from it."""

import json
import struct
import time
from contextlib import closing
from pathlib import Path

import pytest

from bench.calibrate import child, clock
from bench.calibrate.command import calibrate
from bench.calibrate.gauge import Gauge
from bench.calibrate.graphs import PART_BYTES, AttentionGraphs, ProductGraphs
from bench.calibrate.jobs import (
    COLUMNS,
    FEWER_COLUMNS,
    HEAD_SIZES,
    LONG,
    RARE_TYPES,
    REPACKED_COLUMNS,
    attentions,
    products,
)
from bench.calibrate.library import repack_buffer_type
from bench.speed.depth import UnfillableError, grown
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.gguf import GGMLType
from ggufphys.speed.rates import Machine

LIMIT_S = 150.0  # a minute, and what a machine that runs other tests takes longer


@pytest.mark.slow
def test_a_calibration_takes_a_minute_and_knows_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`bench calibrate --json` prints rates of every kernel that it says it measures, and `inspect` uses them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    started = time.monotonic()
    assert main(["bench", "calibrate", "--json", "--threads", "1"]) == 0
    assert time.monotonic() - started < LIMIT_S
    machine = Machine.from_json(json.loads(capsys.readouterr().out))
    (cpu,) = machine.processors

    assert cpu.node_s > 0
    assert {"Q4_K", "Q6_K", "Q8_0", "F16", "F32"} <= set(cpu.products)
    for name, rates in cpu.products.items():
        is_repacked = "repacked" in name
        measured = REPACKED_COLUMNS if is_repacked else FEWER_COLUMNS if GGMLType[name] in RARE_TYPES else COLUMNS
        assert tuple(rate.n_columns for rate in rates) == measured
        assert all(rate.weight_s > 0 and rate.row_s >= 0 for rate in rates)
    assert main(["inspect", "--json", "-c", "1024", str(MODEL)]) == 0
    speed = json.loads(capsys.readouterr().out)["speed"]
    assert speed["basis"] == "calibrated"
    assert speed["decode_tok_per_s"]["low"] < speed["decode_tok_per_s"]["high"]


@pytest.mark.slow
def test_a_machine_that_is_too_slow_for_a_round_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no time left everything but the rare types has been measured once, and rates are rates."""
    monkeypatch.setattr(child, "ENOUGH_S", 0.0)
    monkeypatch.setattr(child, "RARE_S", 0.0)
    monkeypatch.setattr(child, "emit", lambda **event: None)
    started = time.monotonic()
    config = child.Config(threads=(1,), types=(int(GGMLType.Q8_0),), rare=(int(GGMLType.IQ3_S),))
    machine = Machine.from_json(child.calibrate(config, tmp_path))

    assert time.monotonic() - started < LIMIT_S / 3
    assert set(machine.processors[0].products) == {"Q8_0"}
    assert all(rate.weight_s > 0 for rate in machine.processors[0].products["Q8_0"])


def test_caches_of_a_type_are_made_once_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shape of attention sees the same memory: filling it for each takes a calibration the time of a round."""
    monkeypatch.setattr(clock, "MIN_S", 0.0)
    made: list[int] = []

    class Counted(AttentionGraphs):
        def __init__(self, type_kv: GGMLType, *, nbytes: int) -> None:
            made.append(nbytes)
            super().__init__(type_kv, nbytes=nbytes)

    monkeypatch.setattr(child, "AttentionGraphs", Counted)
    jobs = [job for job in attentions((1,), (GGMLType.F16,), large=4 << 20) if job.head_size == HEAD_SIZES[0]]
    measuring = child.Measuring({1: Gauge(1)}, tmp_path, lambda: None)
    measuring.go_round(jobs, ends_at=0.0, is_first=True)

    assert made == [max(job.nbytes for job in jobs)]
    assert set(measuring.found) == set(jobs)
    assert all(found.seconds > 0 for (found,) in measuring.found.values())


def test_a_run_reads_what_was_not_read_for_longest() -> None:
    """Attention goes through its caches by parts of as many layers, so that a short run still meets cold ones."""
    job = next(job for job in attentions((1,), (GGMLType.F16,), large=32 << 20) if job.n_layers > 2)
    with closing(AttentionGraphs(job.type_kv, nbytes=job.nbytes)) as graphs, graphs.graph(job) as (run, n_nodes):
        run()
    assert job.nbytes * n_nodes // job.n_layers == PART_BYTES


def test_weights_lie_where_a_models_do(tmp_path: Path) -> None:
    """In a mapped file, which is gone behind it; repacked ones in memory of their own. The gauge leaves no file."""
    path = tmp_path / "Q8_0.weights"
    (job,) = [j for j in products((1,), GGMLType.Q8_0, repacked=False) if (j.n_columns, j.n_in) == (1, LONG)]
    with closing(ProductGraphs(GGMLType.Q8_0, repacked=False, nbytes=16 << 20, folder=tmp_path)) as graphs:
        assert path.stat().st_size >= 16 << 20
        with graphs.graph(job) as (run, n_nodes):
            run()
        assert n_nodes == 2  # of 4 MiB each
    assert not list(tmp_path.iterdir())
    if repack_buffer_type():
        with closing(ProductGraphs(GGMLType.Q4_0, repacked=True, nbytes=1, folder=tmp_path)):
            assert not list(tmp_path.iterdir())


def test_what_is_said_to_be_left_is_a_minute_at_most() -> None:
    """How many measurements there will be follows from the time that is left, not from all that might be made."""
    assert child.expected(45, 2.0, 800, 57) == 1035  # 44 s more at this pace
    assert child.expected(45, 20.0, 800, 57) == 800  # a slow machine goes through its first round
    assert child.expected(2500, 20.0, 800, 57) == 3257  # a fast one through all
    assert child.expected(900, 50.0, 800, 57) == 900


@pytest.mark.slow
def test_bench_speed_sets_both_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`bench speed` measures every quantity that it was asked for, and predicts within a factor of two at the least."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine = calibrate((1,), types=(int(GGMLType.F16),))
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(machine.to_json()))
    asked = ["--depths", "0,256", "--prompts", "128", "--batches", "2", "--calibration", str(path), "--json"]
    assert main(["bench", "speed", str(MODEL), *asked]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]

    assert [(row["quantity"], row["n"]) for row in rows] == [
        ("prefill", 128), ("decode", 0), ("decode", 256), ("batch", 2),
    ]  # fmt: skip
    assert all(0.5 < row["predicted"] / row["measured"] < 2 for row in rows)


def state(n_cells: int, rows: bytes, *, v_trans: int = 0) -> bytes:
    """A saved sequence of one layer, as llama.cpp writes it."""
    cells = b"".join(struct.pack("<iIi", pos, 1, 0) for pos in range(n_cells))
    layer = struct.pack("<iQ", 1, len(rows) // n_cells) + rows
    return struct.pack("<IiII", 7, 0, 1, n_cells) + cells + struct.pack("<II", v_trans, 1) + 2 * layer


def test_a_state_grows_by_repeating_its_cells() -> None:
    """A sequence of three cells becomes one of eight: positions go on, rows are repeated."""
    assert grown(state(3, b"aabbcc"), 8, (8,)) == state(8, b"aabbccaabbccaabb")


@pytest.mark.parametrize(
    "broken", [state(3, b"aabbcc")[:-1], state(3, b"aabbcc") + b"x", state(3, b"aabbcc", v_trans=1)]
)
def test_states_of_another_form_are_not_touched(broken: bytes) -> None:
    """What is not of the known form is refused, so that the cache is filled by reading instead."""
    with pytest.raises(UnfillableError):
        grown(broken, 8, (8,))
