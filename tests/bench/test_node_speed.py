"""Nodes' seconds beside their predictions, on the embedded model with a data sheet for a machine."""

import json
from pathlib import Path

import pytest

from bench.node_speed import OUTSIDE, as_text, main, rows_of
from ggufphys.embedded import MODEL
from ggufphys.speed.rates import Machine, Processor


def test_rows_are_medians_and_what_is_left_is_beside_nodes() -> None:
    """Seconds of a sort of nodes are those of the middle round; the unwatched step's rest is beside the nodes."""
    rounds = [
        {"nodes": {"ADD": [2, s], "MUL_MAT 4 x 8": [1, 3 * s]}, "plain_s": 5 * s, "gauge_s": 1.0}
        for s in (1.0, 2.0, 9.0)
    ]
    rows = rows_of(rounds, {"ADD": 1.0, "MUL_MAT 4 x 8": 7.5, "SCALE": 0.5, OUTSIDE: 1.0})

    assert [(row.nodes, row.n, row.measured_s, row.predicted_s) for row in rows] == [
        ("MUL_MAT 4 x 8", 1, 6.0, 7.5), ("ADD", 2, 2.0, 1.0), ("SCALE", 0, 0.0, 0.5), (OUTSIDE, 0, 2.0, 1.0),
    ]  # fmt: skip
    assert [row.error for row in rows[:2]] == [0.25, -0.5]
    assert "a step" in as_text(rows, 1.0)


@pytest.mark.parametrize("asked", [["--batch", "2"], ["--prompt", "32"], ["--depth", "64"]])
def test_both_price_the_same_nodes(asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every sort of nodes that llama.cpp computes is in the predicted graph, and the other way round."""
    cpu = Processor(name="CPU", n_threads=1, streams=((0, 1e10),), flops_per_s=1e11)
    path = tmp_path / "sheet.json"
    path.write_text(json.dumps(Machine(name="m", basis="calibrated", source="s", processors=[cpu]).to_json()))

    assert main([str(MODEL), *asked, "--rounds", "2", "--calibration", str(path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"FLASH_ATTN_EXT", "RMS_NORM", "ROPE", "SET_ROWS"} < {row["nodes"] for row in rows}
    assert all(row["n"] > 0 and row["predicted_s"] > 0 for row in rows[:-1])
