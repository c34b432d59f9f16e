"""llama.cpp in a process of its own: what becomes of requests and service when that process dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import BinaryIO, cast

import pytest

from ggufphys.machine.children import environment, module_command
from ggufphys.params import Params
from server.engine.errors import EngineError, NotReadyError
from server.engine.events import Failed, Finished, Piece
from server.engine.frames import Cancel
from server.engine.llama.abort import AbortFlag
from server.engine.llama.batch import Batch
from server.engine.llama.library import create_context, load_model
from server.engine.loop.vitality import Bounds
from server.engine.protocol import EngineStatus
from server.engine.request import GenerationRequest
from server.engine.sampling import Sampling
from server.engine.worker import program, supervised
from server.engine.worker.crash import Crash, FileStamp, worth_without_extra_buffers
from server.engine.worker.messages import NotLoaded, Start
from server.engine.worker.pipe import Sender, receive
from server.engine.worker.supervised import SupervisedEngine
from tests.server.chain_model import ENDING

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

TIMEOUT_S = 60.0
GREEDY = Sampling(temperature=0)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def warnings() -> list[str]:
    return []


@pytest.fixture(scope="module")
def engine(chain_path: Path, warnings: list[str]) -> Iterator[SupervisedEngine]:
    params = Params(n_ctx=100_000, n_threads=1, n_seq_max=4, kv_unified=True)
    engine = SupervisedEngine(chain_path, params, warn=warnings.append)
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    yield engine
    engine.close()


def test_who_leaves_while_it_starts(chain_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others have to say to a worker comes behind what it is to load: it ended itself of anything else."""
    engines: list[SupervisedEngine] = []
    may_start = threading.Event()

    class Interrupted(Sender):
        def send(self, message: object) -> None:
            if isinstance(message, Start):
                may_start.wait(TIMEOUT_S)
                engines[0]._put(Cancel(0))
            super().send(message)

    monkeypatch.setattr(supervised, "Sender", Interrupted)
    engines.append(SupervisedEngine(chain_path, Params(n_ctx=512, n_threads=1)))
    may_start.set()
    assert engines[0].wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engines[0].error
    engines[0].close()


def text_of(engine: SupervisedEngine, prompt: str) -> str:
    generation = engine.submit(GenerationRequest(prompt=engine.tokenize(prompt), sampling=GREEDY))
    text = ""
    while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
        assert not isinstance(event, Failed | None), event
        text += event.text if isinstance(event, Piece) else ""
    return text


def test_killed(engine: SupervisedEngine, warnings: list[str]) -> None:
    """When the worker is killed, what is in flight fails with the reason, and another worker takes over."""
    tokens = engine.tokenize("0")
    running = [engine.submit(GenerationRequest(prompt=tokens, sampling=GREEDY)) for _ in range(3)]
    for generation in running:
        while not isinstance(generation.next_event(TIMEOUT_S), Piece):
            pass
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for generation in running:
        while not isinstance(event := generation.next_event(TIMEOUT_S), Failed):
            assert isinstance(event, Piece)
        assert event.fault == "worker"
        assert "SIGKILL" in event.message
    wait_for(lambda: engine.status is EngineStatus.READY and engine.pid != pid)

    assert text_of(engine, "!") == ENDING[1:]
    assert engine.n_pending == 0
    assert engine.counters.n_restarts == 1
    assert engine.counters.n_generated_tokens > len(ENDING)  # what the first worker had done counts
    assert any("SIGKILL" in line for line in warnings)


def test_replaced_while_it_runs(chain_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of another version is not started: the engine ends with that reason behind the one worker's own."""
    engine = SupervisedEngine(chain_path, Params(n_ctx=512, n_threads=1))
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    pid = engine.pid
    assert pid is not None
    monkeypatch.setattr(program, "AT_START", {**program.AT_START, "server/gone.py": (1, 2, 3)})
    assert text_of(engine, "!") == ENDING[1:]  # what runs goes on
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: engine.status is EngineStatus.FAILED)
    assert "SIGKILL" in str(engine.error)
    assert "the program was replaced while it ran (server/gone.py)" in str(engine.error)
    engine.close()

    later = SupervisedEngine(chain_path, Params(n_ctx=512, n_threads=1))  # one of several models
    assert later.wait_until_settled(TIMEOUT_S) is EngineStatus.FAILED
    assert str(later.error).startswith("the program was replaced")
    later.close()


@pytest.mark.parametrize("is_busy", [True, False])
def test_stopped(chain_path: Path, is_busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is stopped is told of, then replaced; who waited for it is told why. An idle one, too."""
    monkeypatch.setattr(supervised, "WORKER", "tests.server.lively_worker")
    monkeypatch.setattr(supervised, "LOOK_S", 0.05)
    warnings: list[str] = []
    params = Params(n_ctx=100_000, n_threads=1)
    engine = SupervisedEngine(chain_path, params, warn=warnings.append, bounds=Bounds(silent_s=4.0))
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    pid = engine.pid
    assert pid is not None
    running = [engine.submit(GenerationRequest(prompt=engine.tokenize("0"), sampling=GREEDY))] if is_busy else []
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: "has been silent for" in engine.complaint)
    assert engine.pid == pid
    for generation in running:
        while not isinstance(event := generation.next_event(TIMEOUT_S), Failed):
            assert event is not None
        assert event.fault == "worker"
        assert "has been silent for 4 s" in event.message
    wait_for(lambda: engine.status is EngineStatus.READY and engine.pid != pid)
    assert not engine.complaint
    assert text_of(engine, "!") == ENDING[1:]
    engine.close()
    assert [line for line in warnings if "silent" in line]


def test_stuck(chain_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decode that never returns is told of, and its worker replaced, though that one speaks; idle, it is well."""
    monkeypatch.setattr(supervised, "WORKER", "tests.server.stuck_worker")
    monkeypatch.setattr(supervised, "LOOK_S", 0.05)
    engine = SupervisedEngine(chain_path, Params(n_ctx=256, n_threads=1), bounds=Bounds(stuck_s=2.0))
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    assert text_of(engine, "!") == ENDING[1:]
    pid, hung = engine.pid, engine.submit(GenerationRequest(prompt=engine.tokenize("0"), sampling=GREEDY))
    wait_for(lambda: "has been stuck for" in engine.complaint)
    assert engine.pid == pid
    while not isinstance(event := hung.next_event(TIMEOUT_S), Failed):
        assert event is not None
    assert (event.fault, "has been stuck for" in event.message) == ("worker", True)
    wait_for(lambda: engine.status is EngineStatus.READY and engine.pid != pid)
    assert text_of(engine, "!") == ENDING[1:]
    engine.close()


def test_nodes_are_signs_of_life(chain_path: Path) -> None:
    """While a model computes, llama.cpp's questions whether to go on are counted, where that can be done."""
    with load_model(chain_path, Params()) as model:
        context = create_context(model, Params(n_ctx=256, n_threads=1))
        flag = AbortFlag(context)
        assert flag.n_nodes == (0 if sys.platform == "linux" else None)
        with Batch(context, 8) as batch:
            batch.add([1, 2, 3], seq_id=0, start=0, logits_of_last=True)
            assert batch.decode(context) == 0
            if flag.counts:
                done = flag.n_nodes
                assert done is not None
                assert done > 10
                flag.set(False)
                assert flag.n_nodes == 0
            if flag.works:
                batch.clear()
                batch.add([4], seq_id=0, start=3, logits_of_last=True)
                flag.set(True)
                assert batch.decode(context) == 2


def test_no_process_to_be_had(chain_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no process, the start fails with the reason; later on it is tried again."""
    monkeypatch.setattr(supervised, "module_command", lambda name: ["/nowhere"])
    engine = SupervisedEngine(chain_path, Params(n_ctx=256, n_threads=1))
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.FAILED
    assert "the model could not be loaded: its process could not be started: [Errno 2]" in str(engine.error)
    engine.close()

    monkeypatch.undo()
    warnings: list[str] = []
    engine = SupervisedEngine(chain_path, Params(n_ctx=256, n_threads=1), warn=warnings.append)
    assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY, engine.error
    commands = iter([["/nowhere"], module_command(supervised.WORKER)])
    monkeypatch.setattr(supervised, "module_command", lambda name: next(commands))
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: engine.status is EngineStatus.READY and engine.pid not in (pid, None))
    assert text_of(engine, "!") == ENDING[1:]
    engine.close()
    assert "could not be loaded again: its process could not be started" in warnings[1]


def test_killed_while_asked(engine: SupervisedEngine) -> None:
    """Threads that ask while the worker dies get an answer or an error, and none waits for ever."""
    ends: list[str] = []

    def ask() -> None:
        for _ in range(40):
            try:
                engine.submit(GenerationRequest(prompt=engine.tokenize("!"), sampling=GREEDY, max_tokens=1)).cancel()
            except (NotReadyError, EngineError):
                time.sleep(0.002)
        ends.append("done")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(TIMEOUT_S)
    wait_for(lambda: engine.status is EngineStatus.READY and engine.pid != pid)

    assert ends == ["done"] * 4
    assert text_of(engine, "!") == ENDING[1:]


def test_disconnects(engine: SupervisedEngine) -> None:
    """Readers that leave at any moment leave nothing behind: no slot, no place, and no cell that is needed."""
    tokens = engine.tokenize("x" * 50 + "0")
    for i in range(60):
        generation = engine.submit(GenerationRequest(prompt=tokens[: 1 + i % 50], sampling=GREEDY, n=1 + i % 3))
        if i % 4:
            generation.next_event(0.001 * (i % 5))
        generation.cancel()
    wait_for(lambda: engine.counters.n_active == engine.counters.n_waiting == engine.counters.n_cells_busy == 0)

    assert engine.n_pending == 0
    assert text_of(engine, "!") == ENDING[1:]


def test_a_model_overwritten_in_place(tmp_path: Path) -> None:
    """A file that changed under its name is told from one that was replaced by renaming."""
    path, new = tmp_path / "model.gguf", tmp_path / "new.gguf"
    path.write_bytes(b"first")
    stamp = FileStamp.of(str(path))
    assert not stamp.changed_in_place
    path.write_bytes(b"second!")
    crash = Crash.of(-signal.SIGBUS, stamp, is_first_load=False, had_steps=True)
    new.write_bytes(b"third")
    new.rename(path)

    assert "overwritten" in crash.message
    assert "rename" in crash.message
    assert not stamp.changed_in_place


def test_extra_buffers_are_suspected() -> None:
    """A native crash before the first step, or twice on end, is tried again without repacked weights; a kill is not."""

    def crash(number: int, *, had_steps: bool) -> Crash:
        return Crash.of(-number, FileStamp("", None), is_first_load=False, had_steps=had_steps)

    assert worth_without_extra_buffers([crash(signal.SIGSEGV, had_steps=False)])
    assert not worth_without_extra_buffers([crash(signal.SIGSEGV, had_steps=True)])
    assert worth_without_extra_buffers([crash(signal.SIGSEGV, had_steps=True)] * 2)
    assert not worth_without_extra_buffers([crash(signal.SIGKILL, had_steps=False)] * 2)


def test_a_crash_beside_rpc_servers() -> None:
    """An abort is told as what llama.cpp does where one of them is gone, and is no reason not to repack weights."""

    def crash(number: int) -> Crash:
        stamp = FileStamp("", None)
        return Crash.of(-number, stamp, is_first_load=False, had_steps=False, rpc_servers=("10.0.0.2:50052",))

    assert "where an RPC server (10.0.0.2:50052) is gone" in crash(signal.SIGABRT).message
    assert not worth_without_extra_buffers([crash(signal.SIGABRT)] * 2)
    assert worth_without_extra_buffers([crash(signal.SIGSEGV)])


def test_a_worker_that_cannot_load_ends_without_a_word(tmp_path: Path) -> None:
    """What was wrong goes to the parent; Python has nothing to say of the thread that still waits for commands."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF")
    command = module_command("server.engine.worker.process")
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment()) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stderr is not None
        Sender(cast("BinaryIO", worker.stdin)).send(Start(str(path), Params(), "broken", 0.2, verbose=False))
        assert isinstance(receive(cast("BinaryIO", worker.stdout)), NotLoaded)
        assert (worker.wait(TIMEOUT_S), worker.stderr.read()) == (1, b"")
