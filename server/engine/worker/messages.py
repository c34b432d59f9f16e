"""What the engine's process and its parent say to each other beside the loop's commands and steps (`frames`)."""

from typing import Any, Literal, NamedTuple

from ggufphys.logs.lines import LoggedBuffer
from ggufphys.params import Params
from server.engine.guessing import NOTHING, Guessing
from server.engine.loop.vitality import Sign
from server.engine.media import Encoder
from server.engine.model_info import Adapter, ModelInfo


class Start(NamedTuple):
    """To the worker: load this."""

    path: str
    params: Params
    name: str
    target_s: float
    verbose: bool
    adapters: tuple[Adapter, ...] = ()
    guessing: Guessing = NOTHING
    block: int = 0
    encoder: Encoder | None = None
    passage: int = -1  # the descriptor that ways to clients come through (`ways`)

    @property
    def rpc_servers(self) -> tuple[str, ...]:
        """The `host:port` of those that hold a part of the model or of its draft, each once."""
        draft = self.guessing.draft
        devices = (*self.params.devices, *(draft.params.devices if draft else ()))
        return tuple(dict.fromkeys(device.endpoint for device in devices if device.endpoint))


class Call(NamedTuple):
    """To the worker: a question to the tokenizer, answered beside the loop."""

    id: int
    method: Literal["tokenize", "text", "pieces", "read"]
    arguments: tuple[Any, ...]


class Close(NamedTuple):
    """To the worker: end."""


class Loaded(NamedTuple):
    """From the worker: requests can come."""

    info: ModelInfo
    buffers: tuple[LoggedBuffer, ...] = ()  # by llama.cpp's log


class NotLoaded(NamedTuple):
    """From the worker: why they can't; it ends then."""

    error: Exception


class Ending(NamedTuple):
    """From the worker: why it ends itself now, though all was well with it."""

    why: str


class Warned(NamedTuple):
    """From the worker: a line that a user should see."""

    message: str


class Alive(NamedTuple):
    """From the worker, now and then: how far it is, None while it has nothing to do (`vitality`)."""

    sign: Sign | None


class Answered(NamedTuple):
    """From the worker: what a call gave, or raised."""

    id: int
    value: Any
    error: Exception | None
