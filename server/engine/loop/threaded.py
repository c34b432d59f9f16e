"""The engine in this process: a thread for the loop, which owns the model, and one for what readers get.

What is asked of an engine is checked here alike for the one in a process of its own (`SupervisedEngine`).
"""

import itertools
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from ggufphys import GGUFPhysError
from ggufphys.logs.lines import LoggedBuffer
from server.engine.backend import Backend
from server.engine.counters import Counters
from server.engine.errors import (
    ContextLengthError,
    EngineError,
    FaultError,
    NoTextError,
    NotReadyError,
    TextLengthError,
)
from server.engine.frames import Cancel, Command, Embed, Step, Submit
from server.engine.generation import Generation
from server.engine.loop.lease import Lease
from server.engine.loop.loop import EngineLoop
from server.engine.loop.places import Places
from server.engine.media import Read, Span
from server.engine.model_info import ModelInfo, Pooling
from server.engine.protocol import EngineStatus, IsOver, Vectors
from server.engine.readers.gathering import Gathering
from server.engine.readers.readers import Embedding, Readers
from server.engine.request import ActiveAdapters, GenerationRequest
from server.engine.runner import Unwanted, Words

SHUTTING_DOWN: Final = "the server is shutting down"
TARGET_S: Final = 0.2  # how long a reader should wait for the next token while others' prompts are evaluated
POLL_S: Final = 0.25  # at whoever waits for vectors
N_ANSWERS_MAX: Final = 128
N_BESIDE_EACH: Final = 128  # likely tokens that may be shown beside each token
N_SHOWN_MAX: Final = 1 << 18  # of all tokens together, where there are more: a whole vocabulary of one


class BaseEngine(ABC):
    """What every engine does with requests before and after its loop. `put` hands a command to the loop."""

    def __init__(self, *, max_waiting: int) -> None:
        self._places = Places(max_waiting)
        self._readers = Readers(self._put)
        self._readers.ended = self._places.leave
        self._ids = itertools.count()
        self._status = EngineStatus.LOADING
        self._error: Exception | None = None
        self.buffers: tuple[LoggedBuffer, ...] = ()  # what llama.cpp's log says of its memory
        self._settled = threading.Event()  # no longer LOADING

    @abstractmethod
    def _put(self, command: Command) -> None: ...

    @abstractmethod
    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text; see `Engine.tokenize`."""

    @abstractmethod
    def detokenize(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, special ones written out."""

    @abstractmethod
    def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        """The bytes of each token, special ones written out."""

    @abstractmethod
    def read(self, file: bytes) -> Read:
        """The tokens that an image or sound is; see `Engine.read`."""

    @abstractmethod
    def close(self) -> None:
        """End what runs, fail what waits, free the model. A second call does nothing."""

    @property
    def status(self) -> EngineStatus:
        """Whether requests can be submitted."""
        return self._status

    @property
    def error(self) -> Exception | None:
        """Why the status is FAILED, or what the last worker died of."""
        return self._error

    @property
    def complaint(self) -> str:
        """What is wrong though the status is READY: it does not get on."""
        return ""

    def wait_until_settled(self, timeout_s: float | None = None) -> EngineStatus:
        """Wait until the model is loaded or could not be."""
        self._settled.wait(timeout_s)
        return self._status

    def _settle(self, status: EngineStatus) -> None:
        self._status = status
        self._settled.set()

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """The model. Raises NotReadyError until it is loaded."""

    @property
    def counters(self) -> Counters:
        """What has been done since the start, and what is under way."""
        return self._readers.counters

    @property
    def n_pending(self) -> int:
        """Answers asked for that are not over: those under way and those that wait."""
        return self._places.n_taken

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request; see `Engine.submit` for what it raises."""
        info = self.info
        if not info.generates:
            raise NoTextError
        check_prompt(request.prompt, info, request.spans)
        check_scores(request, info)
        if not 1 <= request.n <= N_ANSWERS_MAX:
            raise ValueError(f"n is {request.n}, expected 1 to {N_ANSWERS_MAX}")
        if len(request.prompt) >= info.n_ctx_seq and not (
            request.max_tokens == 0 and len(request.prompt) == info.n_ctx_seq
        ):
            raise ContextLengthError(n_prompt=len(request.prompt), n_ctx_seq=info.n_ctx_seq)
        id = next(self._ids)

        def on_cancel(generation: Generation) -> None:
            self._places.leave(generation, completed=False)
            self._put(Cancel(id))

        generation = Generation(request, on_cancel)
        self._places.take(generation)
        self._readers.add(id, generation)
        self._put(Submit(id, request))
        return generation

    def embed(
        self,
        prompts: tuple[tuple[int, ...], ...],
        pooling: Pooling | None = None,
        adapters: ActiveAdapters = (),
        is_over: IsOver = lambda: False,
    ) -> tuple[Vectors, ...]:
        """Vectors of prompts; see `Engine.embed` for what it raises."""
        info = self.info
        for prompt in prompts:
            check_text(prompt, info)
        id, embedding = next(self._ids), Embedding()
        self._places.take(embedding)
        try:
            self._readers.add_embedding(id, embedding)
            self._put(Embed(id, prompts, pooling, adapters))
            while not embedding.done.wait(POLL_S):
                if is_over():
                    self._put(Cancel(id))
                    self._readers.forget_embedding(id)
                    raise EngineError("nobody waits for these vectors any more")
        finally:
            self._places.leave(embedding, completed=bool(embedding.vectors))
        if embedding.failed is not None:
            raise FaultError(embedding.failed)
        return embedding.vectors


def check_scores(request: GenerationRequest, info: ModelInfo) -> None:
    """Raise ValueError for scores of images, and more likely tokens than a step has time for, and a process room.

    Some beside each token are nothing. All of a large vocabulary's take a tenth of a second a token, in which the other
    answers wait, and make 15 MB of JSON: so they are shown of a few tokens.
    """
    if request.spans and request.n_prompt_logprobs is not None:
        raise ValueError("log-probabilities of a prompt are of text alone, and this one has images or sounds")
    n_beside = min(max(request.n_logprobs or 0, request.n_prompt_logprobs or 0), info.n_vocab)
    n_prompt = len(request.prompt)
    n_each = info.n_ctx_seq + 1 - n_prompt if request.max_tokens is None else request.max_tokens
    n_tokens = request.n * n_each + (0 if request.n_prompt_logprobs is None else n_prompt)
    if n_beside > N_BESIDE_EACH and n_beside * n_tokens > N_SHOWN_MAX:
        raise ValueError(
            f"{n_beside:,} likely tokens beside each of {n_tokens:,} are {n_beside * n_tokens:,}, expected at most "
            f"{N_SHOWN_MAX:,}, or {N_BESIDE_EACH} beside each: ask for fewer, or for a shorter answer (max_tokens)"
        )


def check_prompt(prompt: tuple[int, ...], info: ModelInfo, spans: tuple[Span, ...] = ()) -> None:
    """Raise ValueError for a prompt that llama_decode would refuse."""
    if not prompt:
        raise ValueError("the prompt is empty")
    if spans:
        if spans[-1].end == len(prompt):
            raise ValueError(
                "the prompt ends with an image or sound: an answer goes on from text, so write some behind"
            )
        ends = (0, *(span.end for span in spans))
        starts = (*(span.start for span in spans), len(prompt))
        prompt = tuple(token for end, start in zip(ends, starts, strict=True) for token in prompt[end:start])
    if min(prompt) < 0 or max(prompt) >= info.n_vocab:
        token = next(token for token in prompt if not 0 <= token < info.n_vocab)
        raise ValueError(f"token {token} is not in the vocabulary, expected 0 to {info.n_vocab - 1}")


def check_text(text: tuple[int, ...], info: ModelInfo) -> None:
    """Raise ValueError, TextLengthError for a text that cannot be embedded: llama.cpp would abort of a longer one."""
    check_prompt(text, info)
    n_max = info.n_text_max
    if n_max is not None and len(text) > n_max:
        raise TextLengthError(n_prompt=len(text), n_ctx_seq=n_max, is_most=n_max >= info.n_ctx_train)


class ThreadedEngine(BaseEngine):
    """Loads a model in the background and runs it in this process; implements `Engine`.

    Args:
        load: loads the model, and may give up when what it is given says so.
        max_waiting: how many requests may wait beside those that run.
        warn: gets one-line messages that a user should see.
        target_s: how long a step with prompts in it should take, where somebody reads.
    """

    def __init__(
        self,
        load: Callable[[Unwanted], Backend],
        *,
        max_waiting: int,
        warn: Callable[[str], None],
        target_s: float = TARGET_S,
    ) -> None:
        super().__init__(max_waiting=max_waiting)
        self._load = load
        self._warn = warn
        self._target_s = target_s
        self._lease = Lease()
        self._backend: Backend | None = None
        self._loop: EngineLoop | None = None
        self._gathering = Gathering()
        self._closing = threading.Event()
        self._steps: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._hand_out = threading.Thread(target=self._read, name="readers", daemon=True)
        self._hand_out.start()
        self._thread.start()

    # For any thread.

    @property
    def info(self) -> ModelInfo:
        """The model. Raises NotReadyError until it is loaded."""
        return self._ready.info

    @property
    def _ready(self) -> Backend:
        if self._backend is None or self._status is not EngineStatus.READY:
            raise NotReadyError(f"the engine is not ready: {self._status}")
        return self._backend

    def _put(self, command: Command) -> None:
        if self._loop is not None:
            self._gathering.expect(command)
            self._loop.put(command)

    def _deliver(self, step: Step) -> None:
        left = self._gathering.take(step)
        if left is not None:
            self._steps.put(left)

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text; see `Engine.tokenize`."""
        with self._lease.borrow():
            return tokenize(self._ready.words, text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, special ones written out."""
        with self._lease.borrow():
            return self._ready.words.text(tokens)

    def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        """The bytes of each token, special ones written out."""
        with self._lease.borrow():
            words = self._ready.words
            return tuple(words.piece(token, special=True) for token in tokens)

    def read(self, file: bytes) -> Read:
        """The tokens that an image or sound is; see `Engine.read`."""
        with self._lease.borrow():
            return self._ready.read(file)

    def close(self) -> None:
        """End what runs, fail what waits, free the model. A second call does nothing."""
        self._closing.set()
        self._places.close()
        if self._loop is not None:
            self._loop.close()
        self._thread.join()
        self._hand_out.join()

    # The engine's own threads.

    def _run(self) -> None:
        try:
            backend = self._load(self._closing.is_set)
        except Exception as error:  # whatever it is, the readers of `error` must learn of it
            self._error = error
            self._settle(EngineStatus.CLOSED if self._closing.is_set() else EngineStatus.FAILED)
            self._steps.put(None)
            return
        try:
            self._places.n_slots = backend.layout.n_slots
            self._loop = EngineLoop(backend, self._deliver, target_s=self._target_s, warn=self._warn)
            self._backend = backend
            self.buffers = backend.buffers
            self._settle(EngineStatus.READY)
            if not self._closing.is_set():
                self._loop.run()
        finally:
            self._status = EngineStatus.CLOSED
            self._lease.revoke()
            backend.close()
            self._steps.put(None)

    def _read(self) -> None:
        while (step := self._steps.get()) is not None:
            self._readers.take(step)
        self._readers.fail_all(SHUTTING_DOWN, "closed")


def tokenize(words: Words, text: str, *, add_special: bool, parse_special: bool) -> tuple[int, ...]:
    """Tokens of a text. Raises EngineError where the vocabulary cannot spell it."""
    try:
        return words.tokenize(text, add_special=add_special, parse_special=parse_special)
    except EngineError:
        raise
    except GGUFPhysError as error:
        raise EngineError(str(error)) from error
