"""Opening a model that lies on a server: which requests find its headers, and no more?"""

import base64
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from ggufphys.errors import GGUFError, TruncatedError
from ggufphys.gguf import hub
from ggufphys.gguf.file import GGUFFile
from ggufphys.gguf.header_cache import CachedHeader, HeaderCache
from ggufphys.gguf.http import TIMEOUT_S, Access
from ggufphys.gguf.prefix import NotModified, Prefix
from ggufphys.gguf.reader import Header, parse_header
from ggufphys.gguf.split import Shard, check_siblings, sibling_names

# How far a request may go beyond what is surely needed: with HTTP's own headers less than 1 MiB too much in the end.
SPARE_BYTES: Final = (1 << 20) - (1 << 15)
SIBLING_BYTES: Final = 1 << 17  # the first request for a further shard, which has a tensor table and little else
MAX_HEADER_BYTES: Final = 1 << 28  # ten times the largest known; nobody means a header that claims more
MAX_CONNECTIONS: Final = 8

T = TypeVar("T")
R = TypeVar("R")


class RemoteReader:
    """Reads headers over HTTP: with what cache, patience, and whom to tell about bytes that arrive."""

    def __init__(
        self,
        *,
        cache: HeaderCache | None = None,
        timeout_s: float = TIMEOUT_S,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self._cache = cache
        self._timeout_s = timeout_s
        self._on_bytes = on_bytes

    def open(self, text: str) -> GGUFFile:
        """Open `https://...` or `hf:owner/repo[@revision][:file]`; of a split model any shard will do.

        Raises:
            FetchError: it cannot be fetched; the message says why.
            GGUFError: what was fetched is not the start of a GGUF.
            ValueError: the address is malformed, or a reference may mean several files.
        """
        url, access = address(hub.resolve(text) if text.startswith("hf:") else text)
        shard = self._open_shard(url, access, 0, SPARE_BYTES)
        count = shard.split_number("split.count", 1)
        if count <= 1:
            return GGUFFile(file=shard.file, shards=(shard,), url=url)
        urls = [sibling_url(url, name) for name in sibling_names(shard, count)]

        def open_one(index: int) -> Shard:
            own = urls[index] == url  # its rows must say which shard they are of
            return self._open_shard(urls[index], access, index, SPARE_BYTES if own or index == 0 else SIBLING_BYTES)

        shards = tuple(in_parallel(open_one, range(count)))
        check_siblings(shards)
        return GGUFFile(file=shard.file, shards=shards, url=url)

    def _open_shard(self, url: str, access: Access, index: int, first_bytes: int) -> Shard:
        known = self._known(url, index)
        with Prefix(
            url, access, known_etag=known[0].etag if known else "", timeout_s=self._timeout_s, on_bytes=self._on_bytes
        ) as prefix:
            try:
                header, data = _read_header(prefix, url, index, first_bytes)
            except NotModified:
                assert known is not None
                entry, header = known
                return _shard(url, header, entry.data, entry.file_bytes)
        file_bytes = header.end_offset if prefix.file_bytes is None else prefix.file_bytes
        if self._cache is not None and prefix.etag:
            entry = CachedHeader(etag=prefix.etag, file_bytes=file_bytes, data=data[: header.data_offset])
            self._cache.store(url, entry)
        notes = () if prefix.ranges else ("the server knows no range requests: it began to send the whole file",)
        return _shard(url, header, data, file_bytes, notes)

    def _known(self, url: str, index: int) -> tuple[CachedHeader, Header] | None:
        entry = self._cache.load(url) if self._cache is not None else None
        if entry is None:
            return None
        try:
            return entry, parse_header(entry.data, url, shard=index)
        except GGUFError:  # written by another version, or damaged
            return None


def address(text: str) -> tuple[str, Access]:
    """An address without the credentials in it, and how to ask there.

    Raises:
        ValueError: no http or https address.
    """
    url = hub.bytes_url(text)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is not an address: expected https://host/.../model.gguf")
    userinfo, _, host = parts.netloc.rpartition("@")
    if userinfo:
        secret = base64.b64encode(unquote(userinfo).encode()).decode()
        url = urlunsplit(parts._replace(netloc=host))
        return url, Access(authorization=f"Basic {secret}", advice="the server does not accept these credentials")
    return url, hub.hub_access() if hub.is_hub(url) else Access()


def sibling_url(url: str, name: str) -> str:
    """The address of another file in the same folder."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rpartition("/")[0] + "/" + name))


def in_parallel(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`work` on each item, some at a time; the first error of any is raised.

    The threads are daemons, so that Ctrl-C does not wait for what they wait for.
    """
    results: dict[int, R] = {}
    errors: list[Exception] = []
    pending = iter(enumerate(items))
    lock = threading.Lock()

    def worker() -> None:
        while not errors:
            with lock:
                entry = next(pending, None)
            if entry is None:
                return
            index, item = entry
            try:
                results[index] = work(item)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=worker, daemon=True) for _ in range(min(MAX_CONNECTIONS, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(items))]


def _read_header(prefix: Prefix, url: str, index: int, first_bytes: int) -> tuple[Header, bytes]:
    wanted = first_bytes
    while True:
        prefix.grow(wanted)
        data = bytes(prefix.data)
        if not data:
            raise GGUFError(f"{url}: the file is empty, expected a GGUF file")
        try:
            return parse_header(data, url, shard=index), data
        except TruncatedError as error:
            if len(data) < wanted:  # that is all there is
                raise
            if error.needed_bytes > MAX_HEADER_BYTES:
                raise GGUFError(
                    f"{url}: its header claims {error.needed_bytes:,} bytes and more, expected at most "
                    f"{MAX_HEADER_BYTES:,}: it is not fetched"
                ) from None
            wanted = error.needed_bytes + SPARE_BYTES


def _shard(url: str, header: Header, data: bytes, file_bytes: int, notes: tuple[str, ...] = ()) -> Shard:
    name = unquote(urlsplit(url).path).rpartition("/")[2] or "model.gguf"
    return Shard(file=name, file_bytes=file_bytes, header=header, buffer=data, url=url, notes=notes)
