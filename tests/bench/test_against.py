"""Commands that benchmarks time."""

import subprocess

from bench.against import HERE, inspecting
from ggufphys.embedded import MODEL


def test_a_command_that_is_timed_answers() -> None:
    """The process that stands for `ggufphys inspect MODEL` prints the report, and fails where that does."""
    answer = subprocess.run(inspecting(HERE, "inspect", str(MODEL)), capture_output=True, text=True, check=True)
    failed = subprocess.run(inspecting(HERE, "inspect", "no such file"), capture_output=True, check=False)

    assert "compute buffer" in answer.stdout
    assert failed.returncode == 3
