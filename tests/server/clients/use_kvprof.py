"""kvprof doctor: does the server have all that this profiler of prompt caches asks for?"""

import subprocess
import sys
from pathlib import Path

command = [str(Path(sys.executable).with_name("kvprof")), "doctor", "--upstream", sys.argv[1]]
done = subprocess.run(command, capture_output=True, text=True, timeout=100)
assert done.returncode == 0, done.stdout + done.stderr
assert "FAIL" not in done.stdout, done.stdout
assert "unavailable" not in done.stdout, done.stdout
