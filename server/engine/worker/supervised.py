"""The engine in a process of its own: a native crash ends that process, not the service.

What was in flight then fails with the reason, another process is started, and /health says so meanwhile. It costs an
interpreter's memory (some 25 MiB) and some 0.1 ms a step; what it saves, apart from the service: HTTP's Python and the
loop's have an interpreter lock each.
"""

import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, BinaryIO, Final

from ggufphys.machine.children import died, environment, module_command
from ggufphys.params import Params
from server.engine.counters import Counters
from server.engine.errors import EngineError, NotReadyError
from server.engine.frames import Command, Step
from server.engine.guessing import NOTHING, Guessing
from server.engine.loop.threaded import SHUTTING_DOWN, TARGET_S, BaseEngine
from server.engine.loop.vitality import LOOK_S, USUAL, Bounds, Vitality
from server.engine.media import Encoder, Read
from server.engine.model_info import Adapter, ModelInfo
from server.engine.protocol import EngineStatus
from server.engine.ways import Aside, Offer, Passage
from server.engine.worker import program
from server.engine.worker.crash import Crash, FileStamp, worth_without_extra_buffers
from server.engine.worker.messages import Alive, Answered, Call, Close, Ending, Loaded, NotLoaded, Start, Warned
from server.engine.worker.pipe import Sender, receive

CLOSE_S: Final = 10.0  # a step in a long decode is ended in the middle; what still runs then is killed
STEADY_S: Final = 60.0  # a worker that lived so long starts the count of crashes anew
MAX_WAIT_S: Final = 30.0
WORKER: Final = "server.engine.worker.process"


class SupervisedEngine(BaseEngine):
    """Runs llama.cpp in a child process and starts another when that dies; implements `Engine`.

    Args:
        path: the model.
        params: how it is run.
        name: the model's name to clients; empty: as the file has it.
        max_waiting: how many requests may wait beside those that run.
        warn: gets one-line messages that a user should see.
        target_s: how long a step with prompts in it should take, where somebody reads.
        verbose: llama.cpp's log goes to stderr.
        adapters: LoRA adapters beside the model.
        guessing: how tokens are guessed.
        block: how many slots' answers go together so that others change no bit; 0: as they come.
        encoder: what makes embeddings of images or sounds.
        bounds: a worker that says nothing for so long, or does not get on, is replaced.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        params: Params,
        *,
        name: str = "",
        max_waiting: int = 64,
        warn: Callable[[str], None] = lambda message: None,
        target_s: float = TARGET_S,
        verbose: bool = False,
        adapters: Sequence[Adapter] = (),
        guessing: Guessing = NOTHING,
        block: int = 0,
        encoder: Encoder | None = None,
        bounds: Bounds = USUAL,
    ) -> None:
        super().__init__(max_waiting=max_waiting)
        self._start = Start(os.fspath(path), params, name, target_s, verbose, tuple(adapters), guessing, block, encoder)
        self._warn = warn
        self._info: ModelInfo | None = None
        self._sender: Sender | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._before = Counters()  # of workers that died
        self._calls: dict[int, tuple[threading.Event, list[Answered]]] = {}
        self._call_ids = itertools.count()
        self._lock = threading.Lock()  # over what belongs to the worker there is
        self._closing = threading.Event()
        self.crashes: list[Crash] = []
        self._bounds = bounds
        self._vitality = Vitality(bounds)  # of the worker there is
        self._passage: Passage | None = None
        self._last_words = ""  # why the worker there is ends itself
        self._readers.hand_on = self._hand_on
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._thread.start()

    # For any thread.

    @property
    def info(self) -> ModelInfo:
        """The model. Raises NotReadyError until it is loaded, and while another worker loads it."""
        if self._info is None or self._status is not EngineStatus.READY:
            raise NotReadyError(f"the engine is not ready: {self._status}")
        return self._info

    @property
    def complaint(self) -> str:
        """What is wrong with the worker, if it is silent or stuck."""
        return self._vitality.complaint

    @property
    def counters(self) -> Counters:
        """What has been done since the start, by all workers, and what is under way."""
        return self._before.plus(self._readers.counters)

    @property
    def pid(self) -> int | None:
        """The worker's process, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def _put(self, command: Command) -> None:
        sender = self._sender
        if sender is not None:
            with suppress(OSError, ValueError):  # the worker is dying: whoever waits for it is told by `_mourn`
                sender.send(command)

    def _hand_on(self, message: Offer | Aside, fileno: int) -> bool:
        passage = self._passage
        return passage is not None and passage.send(message, fileno)

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text; see `Engine.tokenize`."""
        text.encode()  # a lone surrogate is an error here, not there
        found: tuple[int, ...] = self._call("tokenize", text, add_special, parse_special)
        return found

    def detokenize(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, special ones written out."""
        found: str = self._call("text", tokens)
        return found

    def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        """The bytes of each token, special ones written out."""
        found: tuple[bytes, ...] = self._call("pieces", tokens)
        return found

    def read(self, file: bytes) -> Read:
        """The tokens that an image or sound is; see `Engine.read`."""
        found: Read = self._call("read", file)
        return found

    def _call(self, method: Any, *arguments: Any) -> Any:
        id, done, answers = next(self._call_ids), threading.Event(), list[Answered]()
        with self._lock:
            if self._status is not EngineStatus.READY or self._sender is None:
                raise NotReadyError(f"the engine is not ready: {self._status}")
            self._calls[id] = done, answers
            sender = self._sender
        with suppress(OSError, ValueError):
            sender.send(Call(id, method, arguments))
        done.wait()
        if not answers:
            raise NotReadyError("the engine's process has ended")
        if answers[0].error is not None:
            raise answers[0].error
        return answers[0].value

    def close(self) -> None:
        """End what runs, fail what waits, end the worker. A second call does nothing."""
        self._places.close()
        self._closing.set()
        with self._lock:
            sender, process = self._sender, self._process
        if sender is not None:
            with suppress(OSError, ValueError):
                sender.send(Close())
        self._thread.join(CLOSE_S)
        if self._thread.is_alive() and process is not None:
            process.kill()
        self._thread.join()

    # The supervisor's thread.

    def _supervise(self) -> None:
        while not self._closing.is_set():
            if why := program.replaced(program.AT_START, program.stamps()):
                self._error = EngineError("; ".join(filter(None, (str(self._error or ""), why))))
                self._settle(EngineStatus.FAILED)
                break
            stamp = FileStamp.of(self._start.path)
            ready_at = self._run_worker()
            if self._closing.is_set() or self._status is EngineStatus.FAILED:
                break
            self._mourn(stamp, ready_at)
        if self._status is not EngineStatus.FAILED:
            self._settle(EngineStatus.CLOSED)
        self._readers.fail_all(SHUTTING_DOWN, "closed")

    def _run_worker(self) -> float:
        """Start a worker and serve from it until its end; when it was ready, 0 if never."""
        options: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {}
        self._passage, theirs = Passage.pair() or (None, None)
        if theirs is not None:
            options["pass_fds"] = (theirs.fileno(),)
        start = self._start._replace(passage=-1 if theirs is None else theirs.fileno())
        try:
            process = subprocess.Popen(
                module_command(WORKER),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(spinning=True),
                **options,
            )
        except OSError as error:  # no memory, or too many processes: `_mourn` tries again later
            self._process, self._error = None, EngineError(f"its process could not be started: {error}")
            if self._passage is not None:
                self._passage.close()
            return 0.0
        finally:
            if theirs is not None:
                theirs.close()
        assert process.stdin is not None
        assert process.stdout is not None
        sender, ready_at = Sender(process.stdin), 0.0  # type: ignore[arg-type]
        ended = threading.Event()
        with self._lock:
            self._process, self._vitality, self._last_words = process, Vitality(self._bounds), ""
        threading.Thread(target=self._watch, args=(process, ended), name="watch", daemon=True).start()
        try:
            sender.send(start)  # before others can send: who leaves now would cancel what the worker knows nothing of
            with self._lock:
                self._sender = sender
            if self._closing.is_set():
                sender.send(Close())
            ready_at = self._listen(process.stdout)  # type: ignore[arg-type]
        except OSError:
            pass  # it died before it read
        finally:
            process.wait()
            ended.set()
            if self._passage is not None:
                self._passage.close()
            with self._lock:
                self._sender = None
                calls, self._calls = self._calls, {}
            for done, _ in calls.values():
                done.set()
            for file in (sender, process.stdout):
                with suppress(OSError):
                    file.close()
        return ready_at

    def _watch(self, process: subprocess.Popen[bytes], ended: threading.Event) -> None:
        """End a worker that hangs: whoever waits for it is told by `_mourn`."""
        then = time.monotonic()
        while not ended.wait(LOOK_S):
            now = time.monotonic()
            self._vitality.look(now - then)
            then = now
            if self._vitality.verdict:
                process.kill()  # a stopped one, too
                return

    def _listen(self, stdout: BinaryIO) -> float:
        ready_at = 0.0
        while True:
            try:
                message = receive(stdout)
            except EOFError:
                return ready_at
            self._vitality.heard()
            if type(message) is tuple:
                self._readers.take(Step.of(message))
                continue
            match message:
                case Step():
                    self._readers.take(message)
                case Answered():
                    with self._lock:
                        done, answers = self._calls.pop(message.id)
                    answers.append(message)
                    done.set()
                case Loaded(info, buffers):
                    self.buffers = buffers
                    ready_at = time.monotonic()
                    self._info = info
                    self._places.n_slots = info.n_slots
                    self._readers.reopen()
                    self._settle(EngineStatus.READY)
                case NotLoaded(error):
                    self._error = error
                    if self._info is None:
                        self._settle(EngineStatus.FAILED if not self._closing.is_set() else EngineStatus.CLOSED)
                case Ending(why):
                    self._last_words = why
                case Alive(sign):
                    self._vitality.beat(sign)
                case Warned(text):
                    self._warn(text)

    def _mourn(self, stamp: FileStamp, ready_at: float) -> None:
        """Tell everybody that the worker is dead and why, and wait before the next one if they die too often."""
        status = 1 if self._process is None else self._process.returncode
        now = time.monotonic()
        if ready_at and now - ready_at > STEADY_S:
            self.crashes.clear()
        had_steps = self._readers.counters.n_steps > 0
        crash = Crash.of(
            status, stamp, is_first_load=self._info is None, had_steps=had_steps,
            rpc_servers=self._start.rpc_servers,
        )  # fmt: skip
        if self._last_words:
            crash = Crash(status=status, message=f"the engine's process ended: {self._last_words}")
        if not died(status) and self._error is not None and not ready_at:
            again = "" if self._info is None else " again"
            crash = Crash(status=status, message=f"the model could not be loaded{again}: {self._error}")
        if verdict := self._vitality.verdict:
            crash = Crash(status=status, message=f"{verdict}; it was ended")
        self.crashes.append(crash)
        self._error = EngineError(crash.message)
        with self._lock:
            self._status = EngineStatus.RESTARTING
        self._before = self._before.plus(self._readers.counters)
        self._before.n_restarts += 1
        self._readers.counters = Counters()
        self._readers.fail_all(f"{crash.message}; it is being restarted, so try again", "worker")
        params = self._start.params
        if params.use_extra_bufts and worth_without_extra_buffers(self.crashes):
            self._start = self._start._replace(
                params=replace(params, use_extra_bufts=False), guessing=self._start.guessing.without_extra_buffers()
            )
            self._warn(f"{crash.message}; the next one runs without repacked weights (as with --no-repack)")
        elif self._info is None:
            self._settle(EngineStatus.FAILED)
            return
        else:
            self._warn(f"{crash.message}; starting another one")
        self._closing.wait(min(MAX_WAIT_S, 2.0 ** (len(self.crashes) - 1) - 1))
