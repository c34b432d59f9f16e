"""A script that answers a line with a line, in a process of its own."""

import os
import subprocess
import sys
from types import TracebackType
from typing import Self


class AskedChild:
    """The process of `script`, with our packages; closes with the block."""

    script: str

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, self.script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GGML_NO_BACKTRACE": "1"},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.communicate()

    def answer(self, question: str) -> str:
        """What it says to a line."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(question + "\n")
        self._child.stdin.flush()
        return self._child.stdout.readline()
