"""What the endpoints share: configuration, engine, the chat template, and whether new work is taken."""

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from flask import g, has_request_context
from werkzeug.wsgi import ClosingIterator

from ggufphys.memory.attachments.predict import draft_context_bytes
from server.access.keys import Keys
from server.access.limits import Limits
from server.accounts.forecast import Forecast, Rates
from server.accounts.ledger import Ledger
from server.accounts.metrics import Metrics
from server.admission import AdmittingEngine
from server.config import ServerConfig
from server.engine.errors import EngineError
from server.engine.model_info import Pooling, Tokens
from server.engine.protocol import Engine, IsOver, Vectors
from server.engine.request import ActiveAdapters
from server.template.chat_template import ChatTemplate

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

N_NUMBERS_MAX: Final = 1 << 26  # of the vectors of a request: 256 MiB, several times until they have all been written


class Sibling(Protocol):
    """One of several models, or one of them with an adapter."""

    @property
    def name(self) -> str:
        """What requests call it."""
        ...

    @property
    def is_loaded(self) -> bool:
        """Whether it is in memory."""
        ...


class Service:
    """One server's state. `draining` set: what runs may finish, new work is refused."""

    def __init__(self, config: ServerConfig, engine: Engine, ledger: Ledger, predicted: Rates | None) -> None:
        self.config = config
        self.engine = AdmittingEngine(engine, Forecast(lambda: engine.info.n_slots, predicted))
        self.ledger = ledger
        self._inner = engine
        self.keys = Keys(config.api_keys)
        self.limits = Limits(per_minute=config.requests_per_minute, at_once=config.requests_at_once)
        self.draining = threading.Event()
        self.in_flight = InFlight()
        self.siblings: tuple[Sibling, ...] = ()  # all models of the server, this one too, where there are several
        self.created = int(time.time())
        self.metrics = Metrics(engine, ledger, self.engine.forecast)
        self._templates: tuple[ChatTemplate, ChatTemplate] | None = None

    def memory(self) -> dict[str, Any]:
        """The ledger now."""
        done, buffers = self._inner.counters, getattr(self._inner, "buffers", ())
        return self.ledger.document(buffers, done, n_requests=self.in_flight.most)

    def embed(
        self, prompts: tuple[Tokens, ...], pooling: Pooling, adapters: ActiveAdapters | None, is_over: IsOver
    ) -> tuple[Vectors, ...]:
        """Vectors of prompts, with the time that they took in the metrics; adapters None: none are asked for.

        Raises:
            ValueError: more numbers than there is room for.
            EngineError: some are not finite; and as `Engine.embed`.
        """
        n_rows = sum(map(len, prompts)) if pooling == "none" else len(prompts)
        n_embd = self.engine.info.n_embd
        n = n_rows * n_embd
        if pooling != "rank" and n > N_NUMBERS_MAX:
            raise ValueError(
                f"{n_rows:,} vectors of {n_embd:,} are {n:,} numbers, expected at most {N_NUMBERS_MAX:,}: ask for "
                "fewer texts at a time"
            )
        began = time.perf_counter()
        found = self.engine.embed(prompts, pooling, adapters, is_over)
        took_s = time.perf_counter() - began
        self.metrics.e2e.observe(took_s)
        tally = g.get("tally") if has_request_context() else None
        if tally is not None:
            tally.n_prompt, tally.prompt_ms = sum(map(len, prompts)), took_s * 1000
        for i, vectors in enumerate(found):
            if not all(math.isfinite(sum(vector)) for vector in vectors):
                raise EngineError(f"the model makes no numbers of text {i}: its vector has some that are not finite")
        return found

    @property
    def cell_bytes(self) -> float | None:
        """Bytes of the cache by its cells, with those of a draft's; None where nothing was predicted."""
        predicted = self.ledger.predicted
        if isinstance(predicted, str) or not self.n_cells:
            return None
        return (predicted.context_bytes + draft_context_bytes(predicted.terms)) / self.n_cells

    @property
    def n_cells(self) -> int:
        """Cells of the cache, none of a model that sleeps; the engine tells them with its first step."""
        if not getattr(self._inner, "is_loaded", True):
            return 0
        info = self.engine.info
        return self.engine.counters.n_cells or (info.n_ctx_seq if info.generates else 0)

    @property
    def chat_template(self) -> ChatTemplate:
        """The model's chat template, compiled on first use. Raises NotReadyError until the model is loaded."""
        return self._compiled()[0]

    @property
    def tool_template(self) -> ChatTemplate:
        """The template of conversations with tools: the file's own for them, else the chat template."""
        return self._compiled()[1]

    def _compiled(self) -> tuple[ChatTemplate, ChatTemplate]:
        if self._templates is None:
            info, asked = self.engine.info, self.config.chat_template
            template = ChatTemplate.of(replace(info, chat_template=asked, tool_template="") if asked else info)
            self._templates = template, template.for_tools()
        return self._templates


class InFlight:
    """Counts responses from the request's arrival until the last byte is handed over, streams included."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = self.most = 0  # now, and at a time
        self.ended: Callable[[], object] = lambda: None  # called behind each of them

    @property
    def count(self) -> int:
        """Responses under way."""
        return self._count

    def wait_for_none(self, timeout_s: float) -> bool:
        """Wait until there are none; False when `timeout_s` passed before."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout_s)

    def counting(self, app: "WSGIApplication") -> "WSGIApplication":
        """`app`, counted."""

        def counted(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            self._add(1)
            done = _once(self._end)
            try:
                return ClosingIterator(app(environ, start_response), done)
            except BaseException:
                done()
                raise

        return counted

    def _end(self) -> None:
        self._add(-1)
        self.ended()

    def _add(self, n: int) -> None:
        with self._changed:
            self._count += n
            self.most = max(self.most, self._count)
            self._changed.notify_all()


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """`call` that does nothing from the second time on: a server may close a response twice."""
    calls = [call]

    def run() -> None:
        if calls:
            calls.pop()()

    return run
