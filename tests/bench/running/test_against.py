"""Commands that benchmarks time."""

import subprocess
import sys

from bench.running.against import HERE, inspecting
from ggufphys.embedded import MODEL


def test_a_command_that_is_timed_answers() -> None:
    """The process that stands for `ggufphys inspect MODEL` prints the report, and fails where that does."""
    answer = subprocess.run(inspecting(HERE, "inspect", str(MODEL)), capture_output=True, text=True, check=True)
    failed = subprocess.run(inspecting(HERE, "inspect", "no such file"), capture_output=True, check=False)

    assert "compute buffer" in answer.stdout
    assert failed.returncode == 3


def test_how_a_benchmark_ends_is_imported_when_it_fails() -> None:
    """What measures another checkout's `ggufphys` starts without names that this one may lack."""
    code = "import sys, bench.predict; sys.exit('ggufphys.cli' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=HERE, check=False).returncode == 0
