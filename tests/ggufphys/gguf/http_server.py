"""A server on loopback that can do what real ones do: ranges, redirects, logins, ETags, and what goes wrong."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Site:
    """What the server offers, how it behaves, and what it was asked. `sent_bytes` counts bytes of bodies."""

    files: dict[str, bytes] = field(default_factory=dict)  # by path
    redirects: dict[str, str] = field(default_factory=dict)  # path -> address
    login: str = ""  # the Authorization header that is wanted
    refusal: tuple[int, dict[str, str]] = (401, {})
    statuses: list[int] = field(default_factory=list)  # for the next requests, before anything else is looked at
    ranges: bool = True
    etags: bool = True
    lengths: bool = True  # False: the size of files is kept secret
    break_after: int = 0  # cut the connection after so many bytes of each body
    block_bytes: int = 1 << 16
    pause_s: float = 0.0  # between blocks
    most_of_a_range: int = 1 << 30  # bytes in an answer, whatever was asked for
    slow_headers_s: float = 0.0  # between header lines, of which there are many
    headers: dict[str, dict[str, str]] = field(default_factory=dict)  # further ones by path
    on_request: Callable[[str], None] = lambda path: None

    port: int = 0
    sent_bytes: int = 0
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The server's address, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def headers_of(self, index: int) -> dict[str, str]:
        """What a request said, header names in lower case."""
        return self.requests[index][1]


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve the site from a thread while the block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.site = site
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    site: Site
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has seen enough closes its connection; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        site = self.server.site
        site.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        site.on_request(self.path)
        path = self.path.partition("?")[0]
        if site.statuses and (status := site.statuses.pop(0)) != 200:
            self._answer(status)
        elif path in site.redirects:
            self._answer(302, {"Location": site.redirects[path]})
        elif site.login and self.headers.get("Authorization") != site.login:
            self._answer(site.refusal[0], site.refusal[1])
        elif self.path in site.files:
            self._send_file(site, self.path)
        elif path in site.files:
            self._send_file(site, path)
        else:
            self._answer(404)

    def _send_file(self, site: Site, path: str) -> None:
        data = site.files[path]
        etag = f'"{hash(data)}"'
        headers = dict(site.headers.get(path, {}))
        if site.etags:
            headers["ETag"] = etag
            if self.headers.get("If-None-Match") == etag:
                self._answer(304, headers)
                return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if site.ranges else None
        total = str(len(data)) if site.lengths else "*"
        if asked is None:
            self._send(200, data, headers, site)
        elif int(asked[1]) >= len(data):
            self._answer(416, {"Content-Range": f"bytes */{total}"})
        else:
            first, last = int(asked[1]), min(int(asked[2]), len(data) - 1, int(asked[1]) + site.most_of_a_range - 1)
            headers.setdefault("Content-Range", f"bytes {first}-{last}/{total}")
            self._send(206, data[first : last + 1], headers, site)

    def _send(self, status: int, body: bytes, headers: dict[str, str], site: Site) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        for number in range(90 if site.slow_headers_s else 0):
            self.send_header(f"X-{number}", "y")
            self.flush_headers()
            time.sleep(site.slow_headers_s)
        if status == 206 or site.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        cut = site.break_after or len(body)
        for start in range(0, min(cut, len(body)), site.block_bytes):
            time.sleep(site.pause_s)
            block = body[start : min(start + site.block_bytes, cut)]
            site.sent_bytes += len(block)  # before the client can have read it
            self.wfile.write(block)

    def _answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
