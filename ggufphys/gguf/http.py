"""One GET request: what did the server answer, and if nothing useful, what can the user do about it?

urllib brings redirects, TLS and proxies (http_proxy, https_proxy, no_proxy); ours are credentials that stay with the
host they are for, and errors in words.
"""

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import IO, Any, Final
from urllib.parse import urljoin, urlsplit

from ggufphys.errors import FetchError
from ggufphys.frozen import dataclass
from ggufphys.units import parse_json

TIMEOUT_S: Final = 20.0  # without a byte
MAX_JSON_BYTES: Final = 32 << 20
BROKEN: Final = (ConnectionError, http.client.HTTPException, ssl.SSLError)  # what a connection may die of on its way


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who asks: the Authorization header for the host of the first address, and advice for when that is refused."""

    authorization: str = ""
    advice: str = "to log in write https://user:password@host/...; HF_TOKEN is sent to the Hub (HF_ENDPOINT) alone"


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
        TimeoutError and those in BROKEN: the connection broke.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "ggufphys", "Accept-Encoding": "identity", **headers})
    if access.authorization:
        request.add_header("Authorization", access.authorization)
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=timeout_s)
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


def _reason(reason: object, timeout_s: float) -> str:
    if isinstance(reason, ssl.SSLError):
        return f"TLS failed: {reason} (SSL_CERT_FILE may name a file of further certificates to trust)"
    if isinstance(reason, TimeoutError):
        return f"no answer for {timeout_s:g} s"
    return f"cannot connect: {getattr(reason, 'strerror', None) or reason}"
