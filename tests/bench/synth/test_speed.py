"""bench.synth.speed: the figures hang together; no time is asserted."""

import json
import sys
from pathlib import Path

import pytest

from bench.synth import speed
from ggufphys.synth import plan_file, shapes

DOCS = Path(__file__).parents[3] / "docs" / "synth.md"


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The ratio is that of the times, the folder is empty again, and nothing but JSON is printed."""
    arguments = ["speed", "--shape", "llama-110m", "--runs", "1", "--folder", str(tmp_path), "--json"]
    monkeypatch.setattr(sys, "argv", arguments)

    assert speed.main() == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ratio"] == document["wall_s"]["ggufphys synth"] / document["wall_s"]["zeros"]
    assert document["peak_rss_bytes"]["ggufphys synth"] > document["peak_rss_bytes"]["zeros"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", shapes())
def test_documented(name: str) -> None:
    """The page of the subcommand has every shape's row with today's figures."""
    plan = plan_file(shapes()[name])
    shape = plan.shape
    figures = f"{shape.n_layer} | {plan.n_params:,} | {plan.file_bytes:,}"

    assert f"| `{name}` | {shape.architecture} | {figures} | {shape.source} |" in DOCS.read_text(encoding="utf-8")
