"""What the server's two processes hold under load is what was predicted, before anything was loaded."""

import json
import os
import subprocess
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ggufphys.embedded import MODEL
from ggufphys.machine.children import module_command
from server.footprint import ARENA_BYTES, STACK_BYTES, find, http_bytes

TIMEOUT_S = 120


def test_threads_of_the_http_side() -> None:
    """Each thread has a stack, and malloc no more than eight arenas a core."""
    n_cores = os.cpu_count() or 1
    assert http_bytes(1) == STACK_BYTES + ARENA_BYTES
    assert http_bytes(1000 * n_cores) == 1000 * n_cores * STACK_BYTES + 8 * n_cores * ARENA_BYTES


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells resident memory by its backing")
def test_within_three_percent_under_load() -> None:
    """After a hundred requests, what is resident in both processes is within 3 % of the prediction."""
    assert find().base_bytes
    command = module_command("ggufphys", "serve", str(MODEL), "-c", "4096", "-np", "8", "--port", "0", "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(lambda i: ask(url, i), range(100)))
            with urllib.request.urlopen(f"{url}/v1/memory", timeout=TIMEOUT_S) as response:
                memory = json.load(response)
        finally:
            process.terminate()
    assert set(memory["measured"]["processes"]) == {"server", "worker"}
    assert abs(memory["unexplained"]["share"]) < 0.03, memory["unexplained"]


def ask(url: str, number: int) -> None:
    """One request, half of them streamed. While the model loads it is asked again."""
    body = {"prompt": f"def f{number}(x): " * 20, "max_tokens": 8, "stream": number % 2 == 0}
    headers = {"Content-Type": "application/json"}
    for _ in range(100):
        request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                response.read()
                return
        except urllib.error.HTTPError as error:
            assert error.code == 503
            error.read()
            threading.Event().wait(0.1)
    pytest.fail("it was never ready")
