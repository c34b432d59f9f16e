"""llamastat, a dashboard for llama-server: one look at props, slots and metrics."""

import json
import subprocess
import sys
from pathlib import Path

command = [str(Path(sys.executable).with_name("llamastat")), "--url", sys.argv[1], "--once", "--json", "--no-host"]
done = subprocess.run(command, capture_output=True, text=True, timeout=100)
assert done.returncode == 0, done.stdout + done.stderr
found = json.loads(done.stdout)
assert found["metrics_available"], found
assert found["m_tokens_predicted_total"] is not None, found
