"""Which headers of remote files are known from last time? A folder of them, asked only when the server confirms.

An entry is a line of JSON (address, ETag, size of the file) and the header's bytes, named by a hash of the address.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.paths import cache_home
from ggufphys.units import parse_json

MAX_CACHE_BYTES: Final = 256 << 20  # some dozen of the largest headers; the oldest go first


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedHeader:
    """The start of a file as it was when it had this ETag."""

    etag: str
    file_bytes: int
    data: bytes


def default_folder() -> Path | None:
    """`$XDG_CACHE_HOME/ggufphys/headers`, or the same below `~/.cache`; None where nobody is at home."""
    caches = cache_home()
    return Path(caches) / "ggufphys" / "headers" if caches else None


class HeaderCache:
    """Headers by address. It is a convenience: a folder that cannot be read or written is an empty cache."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self.folder: Final = folder
        self.max_bytes: Final = max_bytes

    def load(self, url: str) -> CachedHeader | None:
        """The entry for this address; None when there is none, or none that makes sense."""
        path = self._path(url)
        try:
            line, _, data = path.read_bytes().partition(b"\n")
            facts = parse_json(line)
            if facts["url"] != url or facts["header_bytes"] != len(data):
                return None
            entry = CachedHeader(etag=str(facts["etag"]), file_bytes=int(facts["file_bytes"]), data=data)
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None
        with suppress(OSError):
            os.utime(path)  # used now: others are older
        return entry

    def store(self, url: str, entry: CachedHeader) -> None:
        """Keep the entry, and drop the oldest where room is short."""
        facts = {"url": url, "etag": entry.etag, "file_bytes": entry.file_bytes, "header_bytes": len(entry.data)}
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # headers of private models too
            path = self._path(url)
            half = path.with_suffix(f".{os.getpid()}.part")
            half.write_bytes(json.dumps(facts).encode() + b"\n" + entry.data)
            half.replace(path)
            self._shrink()

    def _shrink(self) -> None:
        stats = sorted(((p.stat(), p) for p in self.folder.iterdir()), key=lambda item: item[0].st_mtime, reverse=True)
        held = 0
        for status, path in stats:
            held += status.st_size
            if held > self.max_bytes:
                path.unlink()

    def _path(self, url: str) -> Path:
        return self.folder / hashlib.sha256(url.encode()).hexdigest()
