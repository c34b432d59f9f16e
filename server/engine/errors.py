"""What can go wrong between a request and the model.

GGUFPhysError
└── EngineError          llama.cpp refused or failed: the message quotes it
    ├── NotReadyError    the model is still loading, failed to load, or the engine is shutting down
    ├── QueueFullError   as many requests wait as may wait
    ├── ContextLengthError   the prompt leaves no room for an answer, now or ever
    │   └── TextLengthError  a text to embed is longer than what is computed at once
    ├── NoTextError      the model gives vectors of texts, and generates none
    └── FaultError       what was under way failed; `failed` says whose fault it was
"""

from ggufphys.errors import GGUFPhysError
from server.engine.events import Failed


class EngineError(GGUFPhysError):
    """llama.cpp refused or failed; the message says at what and quotes its last error lines."""


class NotReadyError(EngineError):
    """The engine takes no requests: loading, failed, or closed."""


class QueueFullError(EngineError):
    """The queue is full. `retry_after_s` is when a place is likely to be free, from recent requests."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ContextLengthError(EngineError):
    """The prompt has `n_prompt` tokens, a sequence has room for `n_ctx_seq`, and one must be left to answer."""

    def __init__(self, *, n_prompt: int, n_ctx_seq: int) -> None:
        super().__init__(
            # clients look for llama-server's words in the middle
            f"the prompt ({n_prompt} tokens) exceeds the available context size ({n_ctx_seq} tokens), of which one "
            "must be left for the answer: shorten the prompt, or start the server with a larger --ctx-size"
        )
        self.n_prompt = n_prompt
        self.n_ctx_seq = n_ctx_seq


class TextLengthError(ContextLengthError):
    """A text to embed has `n_prompt` tokens, and may have `n_ctx_seq`: all that the model reads, if `is_most`.

    `param`: the field that it stands in; `what` it is, in words.
    """

    def __init__(
        self, *, n_prompt: int, n_ctx_seq: int, is_most: bool, param: str = "input", what: str = "the input"
    ) -> None:
        more = "" if is_most else ", or start the server with a larger --ubatch-size or --ctx-size"
        EngineError.__init__(
            self, f"{what} ({n_prompt} tokens) is too large, expected at most {n_ctx_seq} tokens: shorten it{more}"
        )
        self.n_prompt = n_prompt
        self.n_ctx_seq = n_ctx_seq
        self.is_most = is_most
        self.param = param

    def named(self, param: str, what: str) -> "TextLengthError":
        """The same, by the field that a client knows it by."""
        return TextLengthError(
            n_prompt=self.n_prompt, n_ctx_seq=self.n_ctx_seq, is_most=self.is_most, param=param, what=what
        )


class NoTextError(EngineError):
    """Text is asked of a model that generates none, or not here."""

    def __init__(self) -> None:
        super().__init__(
            "this server gives vectors of texts and generates none: the model is an encoder, or it was started with "
            "--embeddings or --rerank; ask /v1/embeddings or /v1/rerank"
        )


class FaultError(EngineError):
    """What was under way has failed: a generation's event, where somebody waits for a whole answer."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed
