"""Two servers of one model on one machine: ours and theirs, started alike, each with its best settings otherwise."""

import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import psutil

from bench.running.telling import said_in
from ggufphys import open_gguf
from ggufphys.machine.children import describe, module_command

START_S: Final = 300.0
WAITING: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # left to each server, whatever the shell has


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that is ready. `pid` 0: it was not started here."""

    name: str
    url: str
    pid: int = 0

    @property
    def processes(self) -> list[psutil.Process]:
        """Its process and those that it has started; none if it was not started here."""
        if not self.pid:
            return []
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    @property
    def rss_bytes(self) -> int:
        """What its processes hold now; pages that they share count in each."""
        return sum(process.memory_info().rss for process in self.processes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Which two servers: `against` is a llama-server binary, or the address of a server that runs already.

    `more`: what ours is told beside what both are.
    """

    model: Path
    against: str
    threads: int
    port: int
    more: Sequence[str] = ()

    @contextmanager
    def started(self, *, n_slots: int, n_ctx_slot: int) -> Iterator[tuple[Server, Server]]:
        """Both, with so many slots and tokens in each: ours, theirs. Ended in the end.

        Raises:
            RuntimeError: the model was trained with fewer tokens than a slot has to hold; something listens already.
        """
        with open_gguf(self.model) as gguf:
            n_trained = gguf.get_int(f"{gguf.architecture}.context_length", n_ctx_slot)
        if n_trained < n_ctx_slot:
            raise RuntimeError(
                f"{self.model.name} was trained with {n_trained} tokens and each slot needs {n_ctx_slot}: take another "
                "model, or shorter prompts"
            )
        with self.started_alone(n_slots=n_slots, n_ctx_slot=n_ctx_slot, port=self.port) as ours:
            if self.against.startswith("http"):
                yield ours, Server(name="theirs", url=self.against.rstrip("/"))
                return
            flags = self._flags(n_slots, n_ctx_slot, self.port + 1)
            command = [self.against, "-m", str(self.model), *flags]
            with running("theirs", command, f"http://127.0.0.1:{self.port + 1}") as theirs:
                yield ours, theirs

    @contextmanager
    def started_alone(self, *, n_slots: int, n_ctx_slot: int, port: int) -> Iterator[Server]:
        """Our server by itself."""
        flags = self._flags(n_slots, n_ctx_slot, port)
        command = module_command("ggufphys", "serve", str(self.model), *flags, "--max-queue", "256", *self.more)
        with running("ours", command, f"http://127.0.0.1:{port}") as ours:
            yield ours

    def _flags(self, n_slots: int, n_ctx_slot: int, port: int) -> list[str]:
        """What both are told."""
        sizes = ["-c", str(n_slots * n_ctx_slot), "-np", str(n_slots), "-t", str(self.threads)]
        return [*sizes, "--host", "127.0.0.1", "--port", str(port)]


def in_turn(servers: tuple[Server, Server], number: int) -> tuple[Server, Server]:
    """Both in the order of a round: who is first alternates."""
    return servers if number % 2 == 0 else (servers[1], servers[0])


@contextmanager
def running(name: str, command: Sequence[str], url: str) -> Iterator[Server]:
    """A server as a child process. Raises RuntimeError where another one listens already: it would be measured."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        if not probe.connect_ex((host, int(port))):
            raise RuntimeError(f"{url}: something else listens there; name another port with --port")
    environment = _environment(dict(psutil.Process().environ()))
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment) as process,
    ):
        try:
            _wait_until_ready(url, process, said)
            yield Server(name=name, url=url, pid=process.pid)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in given.items() if name not in WAITING}


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", said: IO[bytes]) -> None:
    """Wait for /health to be 200. Raises RuntimeError when the process ends or it takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            ended = f"{process.args!r} ended with {describe(process.returncode)} before it was ready"
            raise RuntimeError(ended + said_in(said))
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{url} is not ready after {START_S:.0f} s")
