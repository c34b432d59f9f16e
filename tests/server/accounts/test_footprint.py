"""What the server's two processes hold under load is what was predicted, before anything was loaded."""

import json
import platform
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ggufphys.embedded import MODEL
from ggufphys.machine.children import environment, module_command
from server.accounts.footprint import REQUEST_BYTES, THREAD_BYTES, find, http_bytes

TIMEOUT_S = 120


def test_threads_of_the_http_side() -> None:
    """Threads that are there have stacks and frames, and what requests needed at a time is kept."""
    assert http_bytes(0, 0) == 0
    assert http_bytes(3, 100) == 3 * THREAD_BYTES + 100 * REQUEST_BYTES


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's arenas")
def test_threads_share_a_heap() -> None:
    """Threads that allocate at once do so in one arena of malloc's, where each of a few had one of its own."""
    code = """
import ctypes, sys, threading
from server.accounts.footprint import share_heap
if sys.argv[1] == "shared":
    share_heap()
here, go = threading.Barrier(9), threading.Event()
def allocate():
    kept = bytearray(4096)
    here.wait()
    go.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
here.wait()
ctypes.CDLL(None).malloc_stats()
go.set()
"""

    def n_arenas(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", code, how], capture_output=True, text=True, env=environment(), check=True
        )  # fmt: skip
        return done.stderr.count("Arena ")

    assert n_arenas("shared") == 1 < n_arenas("own")


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
