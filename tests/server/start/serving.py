"""`ggufphys serve` in a process, for tests."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TIMEOUT_S = 30.0
ROOT = Path(__file__).resolve().parents[3]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


@dataclass
class Serving:
    """A running `ggufphys serve`."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str]
    extra: list[str] = field(default_factory=list)  # what stands between the two

    def post(self, **body: object) -> urllib.request.Request:
        return urllib.request.Request(
            f"{self.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )

    def status(self, target: str | urllib.request.Request) -> int:
        try:
            with urllib.request.urlopen(target, timeout=TIMEOUT_S) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while self.status(f"{self.url}/health") != 200:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def serving(*arguments: str) -> Iterator[Serving]:
    """Start the server on a free port, and end it whatever happens."""
    command = [sys.executable, "-m", "ggufphys", "serve", *arguments, "--port", "0", "-t", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline(), process.stdout.readline()]
            extra = []
            while lines[1].startswith("  "):
                extra.append(lines[1])
                lines[1] = process.stdout.readline()
            assert " serves " in lines[1], (lines, process.stderr.read() if process.stderr else "")
            yield Serving(process=process, url=lines[1].split()[0], lines=lines, extra=extra)
        finally:
            process.kill()
