"""Requests to a server, from threads: what came back, and when."""

import http.client
import json
import random
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, Final

from bench.load.prompts import WORDS

TIMEOUT_S: Final = 600
GREEDY: Final = {"temperature": 0, "ignore_eos": True}


@dataclass(slots=True, kw_only=True)
class Reply:
    """Status, headers by lower-case name, and the body; of a stream also when each event came, seconds."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stamps: list[float] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        """The body as JSON. Raises RuntimeError for another status than 200."""
        if self.status != 200:
            raise RuntimeError(f"answered {self.status}: {self.body[:200]!r}")
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def is_whole(self) -> bool:
        """Whether a stream came to its end."""
        return self.status == 200 and self.body.rstrip().endswith(b"data: [DONE]")


def send(url: str, path: str, body: dict[str, Any] | None = None, reply: Reply | None = None) -> Reply:
    """POST a body, or GET without one. `reply` is filled as it comes in. Raises OSError, http.client.HTTPException."""
    reply = reply or Reply()
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        reply.status = response.status
        reply.headers = {name.lower(): value for name, value in response.getheaders()}
        while line := response.readline():
            if line.startswith(b"data: {"):
                reply.stamps.append(time.perf_counter())
            reply.body += line
    finally:
        connection.close()
    return reply


def completion(prompt: str, n_predict: int, **more: Any) -> dict[str, Any]:
    """The body of a greedy completion."""
    return {"prompt": prompt, "max_tokens": n_predict, **GREEDY, **more}


def n_tokens(url: str, text: str) -> int:
    """Tokens of a text, by the server, with those that it adds."""
    return len(send(url, "/tokenize", {"content": text, "add_special": True}).document["tokens"])


def words_per_token(url: str) -> float:
    """Of our common words: one token each in most vocabularies, but not in all."""
    return len(WORDS) / n_tokens(url, " ".join(WORDS))


def words(seed: str, n: int, per_token: float) -> str:
    """Words that are about `n` tokens."""
    return " ".join(random.Random(seed).choices(WORDS, k=max(1, round(n * per_token))))
