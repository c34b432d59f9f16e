"""The engine over whatever computes: one thread that owns it, a bounded queue, one generation at a time."""

import threading
import time
import traceback
from collections.abc import Callable

from ggufphys import GGUFPhysError
from server.engine.active import ActiveGeneration
from server.engine.errors import ContextLengthError, EngineError, NotReadyError
from server.engine.lease import Lease
from server.engine.protocol import EngineStatus, Failed, FinishReason, Generation, GenerationRequest, ModelInfo
from server.engine.queue import GenerationQueue
from server.engine.runner import Runner, Unwanted


class ThreadedEngine:
    """Loads a model in the background and generates from it; implements `Engine`.

    Args:
        load: loads the model, and may give up when what it is given says so.
        max_waiting: how many requests may wait.
        warn: gets one-line messages that a user should see.
    """

    def __init__(self, load: Callable[[Unwanted], Runner], *, max_waiting: int, warn: Callable[[str], None]) -> None:
        self._load = load
        self._warn = warn
        self._queue = GenerationQueue(max_waiting)
        self._lease = Lease()
        self._runner: Runner | None = None
        self._status = EngineStatus.LOADING
        self._error: Exception | None = None
        self._settled = threading.Event()  # no longer LOADING
        self._closing = threading.Event()
        self._held: list[int] = []  # the tokens whose keys and values are in memory, by position
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # What HTTP threads call.

    @property
    def status(self) -> EngineStatus:
        """Whether requests can be submitted."""
        return self._status

    @property
    def error(self) -> Exception | None:
        """Why the status is FAILED."""
        return self._error

    def wait_until_settled(self, timeout_s: float | None = None) -> EngineStatus:
        """Wait until the model is loaded or could not be."""
        self._settled.wait(timeout_s)
        return self._status

    @property
    def info(self) -> ModelInfo:
        """The model. Raises NotReadyError until it is loaded."""
        return self._ready.info

    @property
    def _ready(self) -> Runner:
        if self._runner is None or self._status is not EngineStatus.READY:
            raise NotReadyError(f"the engine is not ready: {self._status}")
        return self._runner

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Tokens of a prompt, special ones read and BOS added as the model wants."""
        with self._lease.borrow():
            words = self._ready.words
            try:
                return words.tokenize(text)
            except EngineError:
                raise
            except GGUFPhysError as error:  # the vocabulary cannot spell it
                raise EngineError(str(error)) from error

    def detokenize(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, special ones written out."""
        with self._lease.borrow():
            return self._ready.words.text(tokens)

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request; see `Engine.submit` for what it raises."""
        info = self._ready.info
        if not request.prompt:
            raise ValueError("the prompt is empty")
        for token in request.prompt:
            if not 0 <= token < info.n_vocab:
                raise ValueError(f"token {token} is not in the vocabulary, expected 0 to {info.n_vocab - 1}")
        if len(request.prompt) >= info.n_ctx_seq:
            raise ContextLengthError(n_prompt=len(request.prompt), n_ctx_seq=info.n_ctx_seq)
        generation = Generation(request)
        self._queue.put(generation)
        return generation

    def close(self) -> None:
        """End what runs, fail what waits, free the model. A second call does nothing."""
        self._closing.set()
        for generation in self._queue.close():
            generation.publish(Failed(message="the server is shutting down"))
        self._thread.join()

    # What the engine's own thread does.

    def _run(self) -> None:
        try:
            runner = self._load(self._closing.is_set)
        except Exception as error:  # whatever it is, the readers of `error` must learn of it
            self._error = error
            self._settle(EngineStatus.CLOSED if self._closing.is_set() else EngineStatus.FAILED)
            return
        try:
            self._runner = runner
            self._settle(EngineStatus.READY)
            while (generation := self._queue.get()) is not None:
                started_at = time.perf_counter()
                self._generate(generation, runner)
                self._queue.completed(started_at)
        finally:
            self._status = EngineStatus.CLOSED
            self._lease.revoke()
            runner.close()

    def _settle(self, status: EngineStatus) -> None:
        self._status = status
        self._settled.set()

    def _generate(self, generation: Generation, runner: Runner) -> None:
        """Run one generation to its last event. Whatever goes wrong ends this generation, not the engine."""
        try:
            n_cached = self._reuse(generation.request, runner)
            with runner.chooser(generation.request.sampling) as chooser:
                active = ActiveGeneration(generation, chooser, runner.words, n_cached=n_cached)
                active.finish(self._advance(active, runner, n_cached))
        except Exception as error:
            runner.keep(0)
            self._held.clear()
            if not isinstance(error, EngineError):
                self._warn("unexpected error in the engine:\n" + traceback.format_exc())
            generation.publish(Failed(message=str(error) or type(error).__name__))

    def _reuse(self, request: GenerationRequest, runner: Runner) -> int:
        """Cut memory back to what the prompt shares with it; how many of the prompt's tokens need no evaluation.

        At least the last token is evaluated again, because its logits are needed.
        """
        n_cached = 0
        if request.cache_prompt:
            n_cached = min(_common_prefix(self._held, request.prompt), len(request.prompt) - 1)
        if not runner.keep(n_cached):
            n_cached = 0
        del self._held[n_cached:]
        return n_cached

    def _advance(self, active: ActiveGeneration, runner: Runner, n_cached: int) -> FinishReason:
        prompt = active.request.prompt
        row = -1
        for start in range(n_cached, len(prompt), runner.n_step):
            if self._unwanted(active):
                return "cancelled"
            chunk = prompt[start : start + runner.n_step]
            row = self._evaluate(chunk, runner, logits=start + len(chunk) == len(prompt))
        if active.request.max_tokens == 0:
            return "length"
        while True:
            token = active.chooser.sample(row)
            if token is None:
                raise EngineError(
                    "the model's logits are not numbers (NaN or infinite): a broken or unsuited model file"
                )
            reason = active.accept(token)
            if reason is not None:
                return reason
            if self._unwanted(active):
                return "cancelled"
            if len(self._held) >= runner.info.n_ctx_seq:
                return "length"
            row = self._evaluate((token,), runner, logits=True)

    def _unwanted(self, active: ActiveGeneration) -> bool:
        return active.generation.cancelled or self._closing.is_set()

    def _evaluate(self, tokens: tuple[int, ...], runner: Runner, *, logits: bool) -> int:
        row = runner.evaluate(tokens, len(self._held), logits=logits)
        self._held.extend(tokens)
        return row


def _common_prefix(held: list[int], prompt: tuple[int, ...]) -> int:
    n = 0
    for ours, theirs in zip(held, prompt, strict=False):
        if ours != theirs:
            break
        n += 1
    return n
