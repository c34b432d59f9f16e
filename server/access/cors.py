"""May pages of other origins use this server? What browsers ask before they let them (CORS), by llama-server's flags.

Source: llama.cpp 0c1e570 tools/server/server-http.cpp, set_pre_routing_handler; https://fetch.spec.whatwg.org/#http-cors-protocol.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ANY: Final = "*"
LOCALHOST: Final = "localhost"
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
EXPOSED: Final = "Retry-After, X-Request-Id"  # of an answer's headers, those that pages may read beside the usual ones
MAX_AGE_S: Final = 600

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsPolicy:
    """Which origins may, and with what. `origins`: `*`, `localhost` (of any port), or origins by commas; none if empty.

    `headers` `*` are those that are asked for: the protocol's own `*` leaves out Authorization. With `credentials`
    pages may send what the browser keeps for this origin (a proxy's cookies or passwords); API keys need none of that.
    """

    origins: str = ANY
    methods: str = "GET, POST, DELETE, OPTIONS"
    headers: str = ANY
    credentials: bool = False

    def allowed(self, origin: str) -> str:
        """What `Access-Control-Allow-Origin` says to an origin, empty: nothing."""
        if self.origins == ANY:
            return origin if self.credentials else ANY
        if self.origins == LOCALHOST:
            return origin if _host(origin) in LOCAL_HOSTS else ""
        return origin if origin in (each.strip() for each in self.origins.split(",")) else ""

    def of_answer(self, environ: "WSGIEnvironment") -> Headers:
        """Headers of every answer to a page; to others there is nothing to say."""
        origin = environ.get("HTTP_ORIGIN", "")
        if not origin:
            return []
        found: Headers = [] if self.origins == ANY and not self.credentials else [("Vary", "Origin")]
        allowed = self.allowed(origin)
        if allowed:
            found += [("Access-Control-Allow-Origin", allowed), ("Access-Control-Expose-Headers", EXPOSED)]
            if self.credentials:
                found.append(("Access-Control-Allow-Credentials", "true"))
        return found

    def of_preflight(self, environ: "WSGIEnvironment") -> Headers:
        """Headers of the answer to a browser that asks before it sends."""
        found = self.of_answer(environ)
        if any(name == "Access-Control-Allow-Origin" for name, _ in found):
            asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", ANY)
            found += [
                ("Access-Control-Allow-Methods", self.methods),
                ("Access-Control-Allow-Headers", asked if self.headers == ANY else self.headers),
                ("Access-Control-Max-Age", str(MAX_AGE_S)),
            ]
        return found


DEFAULT: Final = CorsPolicy()


class Cors:
    """A WSGI application with those headers. It answers OPTIONS itself, without a key: browsers send none with it."""

    def __init__(self, app: "WSGIApplication", policy: CorsPolicy) -> None:
        self._app = app
        self._policy = policy

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a preflight, or let the application answer."""
        if environ["REQUEST_METHOD"] == "OPTIONS":
            start_response("204 No Content", [("Allow", self._policy.methods), *self._policy.of_preflight(environ)])
            return []
        more = self._policy.of_answer(environ)

        def start(status: str, headers: Headers, *error: Any) -> Any:
            return start_response(status, [*headers, *more], *error)

        return self._app(environ, start if more else start_response)


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:  # brackets that are no IPv6 address
        return ""
