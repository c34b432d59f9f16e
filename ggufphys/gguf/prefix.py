"""How is the start of a remote file fetched, and no more of it? Range requests that go on where a connection broke."""

import http.client
import re
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from ggufphys.errors import FetchError
from ggufphys.gguf.http import BROKEN, TIMEOUT_S, Access, Refused, TooSlow, open_url, origin

MAX_BREAKS: Final = 6  # broken connections, scanty answers and busy servers that one file may have
FIRST_PAUSE_S: Final = 0.2  # before going on after a break; doubled each time
BLOCK_BYTES: Final = 1 << 16
MOST_SAID: Final = 200  # characters of an error that may quote what a server sent
BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})  # statuses that may be gone a moment later
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class NotModified(Exception):
    """The file still has the ETag that was asked about."""


class Prefix:
    """The first bytes of a remote file: `data` grows as asked, `file_bytes` and `etag` are known once some are there.

    A server that answers range requests sends just what is asked for. From one that sends the whole file instead
    (`ranges` is then False) reading stops early. Use it as a context manager, or `close()` it.
    """

    def __init__(
        self,
        url: str,
        access: Access,
        *,
        known_etag: str = "",
        timeout_s: float = TIMEOUT_S,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self.data = bytearray()
        self.file_bytes: int | None = None  # None: not known (yet)
        self.etag = ""
        self.ranges = True
        self._url = url
        self._at = url  # where redirects led, so that they are followed once
        self._access = access
        self._known_etag = known_etag
        self._timeout_s = timeout_s
        self._on_bytes = on_bytes
        self._whole: http.client.HTTPResponse | None = None  # a server that knows no ranges is read from on and on
        self._breaks = 0

    def grow(self, nbytes: int) -> None:
        """Fetch until `nbytes` are there, or all that the file has.

        Raises:
            NotModified: the first request found the ETag unchanged.
            FetchError: no connection, refused, or broken too often.
        """
        while len(self.data) < (nbytes if self.file_bytes is None else min(nbytes, self.file_bytes)):
            try:
                if self._whole is None:
                    self._request(nbytes)
                else:
                    self._read(self._whole, nbytes)
            except (_Break, *BROKEN) as error:
                self._recover(error)
            except TimeoutError as error:
                said = str(error) if isinstance(error, TooSlow) else f"no answer for {self._timeout_s:g} s"
                raise FetchError(f"{self._url}: {said} ({len(self.data):,} bytes were read)") from None

    def close(self) -> None:
        """Close the connection that is open to a server without ranges."""
        if self._whole is not None:
            self._whole.close()
            self._whole = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, nbytes: int) -> None:
        start = len(self.data)
        headers = {"Range": f"bytes={start}-{nbytes - 1}"}
        if self._known_etag and not start:
            headers["If-None-Match"] = self._known_etag
        access = self._access if origin(self._at) == origin(self._url) else Access()
        try:
            response = open_url(self._at, access, headers, timeout_s=self._timeout_s)
        except Refused as refused:
            self._refused(refused)
            return
        self._at = response.url
        etag = response.headers.get("ETag", "")
        if start and etag != self.etag:
            response.close()
            raise self._changed()
        self.etag = etag
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            response.close()
            raise FetchError(f"{self._url}: the server sends it as {encoding!r}, expected the bytes as they are")
        if response.status == 206:
            with response:
                self._read_range(response, start, nbytes)
        else:  # 200: all of it, from the start
            self.ranges = False
            self.data.clear()
            self.file_bytes = _number(response.headers.get("Content-Length"))
            self._whole = response

    def _read_range(self, response: http.client.HTTPResponse, start: int, nbytes: int) -> None:
        said = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(said)
        if match is None or match[1] is None or int(match[1]) != start or int(match[2]) < start:
            raise FetchError(f"{self._url}: asked for bytes from {start:,} on, the server sent {said or 'something'!r}")
        end = min(int(match[2]) + 1, nbytes)
        total = _number(match[3])
        if total is None and end < nbytes:  # the size is kept secret, but it sent less than asked for: its end
            total = end
        if total is not None and self.file_bytes not in (None, total):
            raise self._changed()
        self.file_bytes = total
        self._read(response, end)
        if end - start < BLOCK_BYTES and len(self.data) < min(nbytes, total or nbytes):
            raise _Break(f"the server sent {end - start:,} of the {nbytes - start:,} bytes that were asked for")

    def _read(self, response: http.client.HTTPResponse, end: int) -> None:
        while len(self.data) < end:
            block = response.read1(min(BLOCK_BYTES, end - len(self.data)))
            if not block and self._whole is not None and self.file_bytes is None:
                self.file_bytes = len(self.data)  # no length was announced: where it ends is the end
                return
            if not block:
                raise _Break("the connection broke off")
            self.data += block
            if self._on_bytes is not None:
                self._on_bytes(len(block))

    def _refused(self, refused: Refused) -> None:
        if refused.status == 304 and self._known_etag and not self.data:
            raise NotModified
        if refused.status == 416:  # nothing behind what is there: an empty file, or a size that was kept secret
            self.file_bytes = len(self.data)
            return
        if refused.status in BUSY:
            raise _Break(str(refused))
        if refused.status in (401, 403) and self._at != self._url:  # the address behind the redirect has expired
            self._at = self._url
            raise _Break(str(refused))
        raise refused.as_error(self._url, self._access)

    def _recover(self, error: Exception) -> None:
        self._breaks += 1
        self.close()
        if self._breaks > MAX_BREAKS:
            raise FetchError(
                f"{self._url}: gave up after {self._breaks} attempts with {len(self.data):,} bytes read: "
                f"{str(error)[:MOST_SAID] or type(error).__name__}"
            ) from None
        time.sleep(FIRST_PAUSE_S * 2 ** (self._breaks - 1))

    def _changed(self) -> FetchError:
        return FetchError(f"{self._url}: the file changed while it was read: try again")


class _Break(Exception):
    """The transfer ended early, and may be taken up again."""


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,18}", text) else None
