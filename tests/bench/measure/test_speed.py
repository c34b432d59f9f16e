"""What `measure` says of speed where it has no prediction: why not."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.measure.sample import MemorySample
from bench.measure.speed import predicted, speed_rows
from bench.measure.supervise import ChildResult, Phase
from ggufphys import Params, open_gguf
from ggufphys.embedded import MODEL

NONE = MemorySample(rss_bytes=0, anon_bytes=None, file_bytes=None, swap_bytes=None, peak_bytes=None, locked_bytes=None)
RUN = ChildResult(
    exit=0,
    phases=(
        Phase(name="prefill", memory=NONE, facts={"n_tokens": 16, "seconds": 1.0}),
        Phase(name="decode", memory=NONE, facts={"n_tokens": 4}),
    ),
    error=None,
    stderr="",
)


@pytest.mark.parametrize(
    ("kept", "why"),
    [(None, "`ggufphys bench calibrate`"), ("{", "calibration.json"), ('{"schema_version": 1}', "schema 1, expected")],
)
def test_why_there_is_no_prediction(
    kept: str | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that was never calibrated, and a calibration that cannot be read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if kept is not None:
        place = tmp_path / "ggufphys" / "speed"
        place.mkdir(parents=True)
        (place / "calibration.json").write_text(kept)
    with open_gguf(MODEL) as gguf:
        figures, no_speed = predicted(gguf, Params(n_ctx=64, n_threads=1), RUN)
    assert figures == (None, None)
    assert why in no_speed


def test_a_run_that_generates_nothing() -> None:
    """`measure -n 0` reads a prompt, and has a row of that alone."""
    none = replace(RUN.phases[1], facts={"n_tokens": 0, "seconds": 0, "steps": []})
    rows = speed_rows(replace(RUN, phases=(RUN.phases[0], none)))
    assert [(row.quantity, row.measured) for row in rows] == [("prefill_tok_per_s", 16.0)]
