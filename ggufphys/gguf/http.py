"""One GET request: what did the server answer, and if nothing useful, what can the user do about it?

urllib brings redirects, TLS and proxies (http_proxy, https_proxy, no_proxy); ours are credentials that stay with the
host they are for, and errors in words.
"""

import http.client
import io
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import IO, Any, Final
from urllib.parse import urljoin, urlsplit

from ggufphys.errors import FetchError
from ggufphys.frozen import dataclass
from ggufphys.units import parse_json

TIMEOUT_S: Final = 20.0  # without a byte
LEAST_BYTES: Final = 1 << 16  # in that time once something has come: a modem's half; who sends less is not waited for
MAX_JSON_BYTES: Final = 32 << 20
BROKEN: Final = (ConnectionError, http.client.HTTPException, ssl.SSLError)  # what a connection may die of on its way


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who asks: the Authorization header for the host of the first address, and advice for when that is refused."""

    authorization: str = ""
    advice: str = "to log in write https://user:password@host/...; HF_TOKEN is sent to the Hub (HF_ENDPOINT) alone"


class TooSlow(TimeoutError):
    """What a server sends trickles; the message says how little came in which time."""


class Refused(Exception):
    """A status that is no success, with what the server said about it; the connection is closed."""

    def __init__(self, error: urllib.error.HTTPError) -> None:
        super().__init__(" ".join(f"the server answered {error.code} {error.reason}".split()))
        self.status: Final = error.code
        self.headers: Final = error.headers

    def as_error(self, url: str, access: Access) -> FetchError:
        """What to tell the user."""
        said = self.headers.get("X-Error-Message", "")  # the Hub's
        text = f"{url}: {self}{f' ({said})' if said else ''}"
        if self.status in (401, 403):
            text += f": {access.advice}"
        elif self.status == 404:
            text += ": no such file"
        return FetchError(text)


def open_url(url: str, access: Access, headers: Mapping[str, str], *, timeout_s: float) -> http.client.HTTPResponse:
    """Send a GET request and follow redirects; the answer has status 200 or 206.

    Raises:
        Refused: any other status.
        FetchError: no such host, no connection, TLS failed, or the address is malformed.
        TooSlow: less than `LEAST_BYTES` came in `timeout_s`, here or when the answer is read.
        TimeoutError and those in BROKEN: the connection broke.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "ggufphys", "Accept-Encoding": "identity", **headers})
    if access.authorization:
        request.add_header("Authorization", access.authorization)
    try:
        response = urllib.request.build_opener(_Redirects, _Patient(timeout_s), _PatientTLS(timeout_s)).open(
            request, timeout=timeout_s
        )
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(error) from None
    except urllib.error.URLError as error:
        raise FetchError(f"{url}: {_reason(error.reason, timeout_s)}") from None
    except (http.client.InvalidURL, ValueError) as error:  # the address that was given, or one that it leads to
        raise FetchError(f"{url}: not an address that can be fetched: {error}") from None
    assert isinstance(response, http.client.HTTPResponse)
    if response.status not in (200, 206):
        response.close()
        raise FetchError(f"{url}: the server answered {response.status} {response.reason}, expected 200 or 206")
    return response


def get_json(url: str, access: Access) -> tuple[Any, str]:
    """A JSON document, and the address of its next page (empty: there is none).

    Raises:
        FetchError: it cannot be fetched, or is no JSON.
    """
    try:
        with open_url(url, access, {"Accept": "application/json"}, timeout_s=TIMEOUT_S) as response:
            text = response.read(MAX_JSON_BYTES)
            link = response.headers.get("Link", "")
    except Refused as refused:
        raise refused.as_error(url, access) from None
    except (TimeoutError, *BROKEN) as error:
        raise FetchError(f"{url}: {error or type(error).__name__}") from None
    try:
        document = parse_json(text)
    except ValueError:
        raise FetchError(f"{url}: expected JSON, the server sent {text[:40]!r}") from None
    following = re.search(r'<([^>]+)>\s*;\s*rel="?next"?', link)
    return document, urljoin(url, following[1]) if following else ""


def origin(url: str) -> tuple[str, str]:
    """Scheme and host of an address: whom credentials are for."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; credentials stay with the host (and scheme) they were given for."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        if urlsplit(newurl).scheme not in ("http", "https"):
            fp.close()
            raise FetchError(f"{req.full_url}: redirected to {newurl!r}, expected an http or https address")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            request.remove_header("Proxy-authorization")  # urllib adds it again where a proxy is used
            if origin(newurl) != origin(req.full_url):
                request.remove_header("Authorization")
        return request


class _Steady(io.RawIOBase):
    """What a socket gives, as long as it is no trickle: `LEAST_BYTES` in `timeout_s`, from the first byte on."""

    def __init__(self, raw: io.RawIOBase, timeout_s: float) -> None:
        self._raw = raw
        self._timeout_s = timeout_s
        self._since: float | None = None
        self._nbytes = 0  # that came since then

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """As the socket has it.

        Raises:
            TooSlow: too little came.
        """
        n = self._raw.readinto(buffer)
        now = time.monotonic()
        if self._since is None:
            self._since = now
        self._nbytes += n or 0
        if n and now - self._since > self._timeout_s:
            if self._nbytes < LEAST_BYTES:
                raise TooSlow(
                    f"only {self._nbytes:,} bytes came in {now - self._since:.3g} s, expected {LEAST_BYTES:,} at least"
                )
            self._since, self._nbytes = now, 0
        return n

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PatientConnections(urllib.request.AbstractHTTPHandler):
    """Connections whose answers, headers and all, are read by `_Steady`."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self._timeout_s = timeout_s

    def do_open(self, http_class: Any, req: urllib.request.Request, **settings: Any) -> http.client.HTTPResponse:
        def answer(sock: Any, *args: Any, **more: Any) -> http.client.HTTPResponse:
            response = http.client.HTTPResponse(sock, *args, **more)
            response.fp = io.BufferedReader(_Steady(response.fp.detach(), self._timeout_s))
            return response

        def connection(*args: Any, **more: Any) -> Any:
            made = http_class(*args, **more)
            made.response_class = answer
            return made

        return super().do_open(connection, req, **settings)


class _Patient(_PatientConnections, urllib.request.HTTPHandler):
    """Opens addresses of http:// so."""


class _PatientTLS(_PatientConnections, urllib.request.HTTPSHandler):
    """Opens addresses of https:// so."""


def _reason(reason: object, timeout_s: float) -> str:
    if isinstance(reason, ssl.SSLError):
        return f"TLS failed: {reason} (SSL_CERT_FILE may name a file of further certificates to trust)"
    if isinstance(reason, TimeoutError):
        return f"no answer for {timeout_s:g} s"
    return f"cannot connect: {getattr(reason, 'strerror', None) or reason}"
