"""What is written down of each request? A line when its answer is over.

Each has an id: the client's X-Request-Id, or one of ours, which the answer carries too.
"""

import re
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import quote

from flask import Flask, Response, g, request

from server.journal import ACCESS

HEADER: Final = "X-Request-Id"
_ID: Final = re.compile(r"[\w.:-]{1,128}")  # what is taken of a client's: nothing that could forge a line
_SAFE: Final = "/:,@!$&'()*+;[]~"


@dataclass(slots=True)
class Tally:
    """What a request's answers took, filled as they end."""

    n_prompt: int = 0
    n_cached: int = 0
    n_generated: int = 0
    queue_ms: float = 0.0
    prompt_ms: float = 0.0
    decode_ms: float = 0.0
    reevaluated: str = ""  # why tokens of prompts that memory held were evaluated again, in `Reuse`'s words
    n_drafted: int = 0
    n_draft_accepted: int = 0


def keep_journal(app: Flask) -> None:
    """Give every request of an application an id, and write a line when its answer is over."""

    @app.before_request
    def begin() -> None:
        given = request.headers.get(HEADER, "")
        g.request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        g.began = time.perf_counter()
        g.tally = Tally()

    @app.after_request
    def end(response: Response) -> Response:
        response.headers[HEADER] = g.request_id
        if ACCESS.handlers:
            fields = {
                "request_id": g.request_id, "client": g.get("client", ""), "method": request.method,
                "path": request.path, "status": response.status_code,
            }  # fmt: skip
            began, tally = g.began, g.tally
            response.call_on_close(lambda: _write(fields, began, tally))
        return response


def _shown(value: Any) -> Any:
    """A field of a line; what a client may have put into it can neither end the line nor begin another field."""
    return quote(value, safe=_SAFE) if isinstance(value, str) else value


def _write(fields: dict[str, Any], began: float, tally: Tally) -> None:
    fields["ms"] = round((time.perf_counter() - began) * 1000, 1)
    if tally.n_prompt:
        told = asdict(tally)
        if not tally.n_drafted:
            del told["n_drafted"], told["n_draft_accepted"]
        fields |= {name: round(value, 1) if isinstance(value, float) else value for name, value in told.items()}
    message = " ".join(f"{name}={_shown(value)}" for name, value in fields.items() if value != "")
    with suppress(Exception):  # a full disk must not end an answer
        ACCESS.info(message, extra={"fields": fields})
