"""Where is the model that the user names: in a file, at an address, on the Hub, in Ollama's store?"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from ggufphys.gguf.file import GGUFFile, open_gguf
from ggufphys.paths import is_folder, is_there, plain

if TYPE_CHECKING:
    from pathlib import Path

    from ggufphys.gguf.known import KnownArrays

HUB: Final = "hf:"
REMOTE: Final = ("http://", "https://", HUB)
OLLAMA: Final = "ollama:"
EMPTY: Final = "the model's name is empty: expected a path, https://..., hf:owner/repo or ollama:name"


def is_remote(text: str | os.PathLike[str]) -> bool:
    """Is it an address or a reference to the Hub, not a path? (A local file of such a name is `./hf:...`.)"""
    return os.fspath(text).startswith(REMOTE)


def is_pattern(text: str) -> bool:
    """Is it a pattern of files, not the name of one?"""
    return any(mark in text for mark in "*?[") and not is_there(text)


def names_several(texts: Sequence[str]) -> bool:
    """Do these name several models, or a place where there may be several: a folder, or a pattern of files?"""
    if "" in texts:
        raise ValueError(EMPTY)
    return len(texts) > 1 or (not is_remote(texts[0]) and (is_folder(texts[0]) or is_pattern(texts[0])))


def local_path(text: str) -> "Path":
    """`local_file`, for those who read and run it."""
    from pathlib import Path  # what a header's reader does without

    return Path(local_file(text))


def local_file(text: str) -> str:
    """The path of a model that is going to be run: the path itself, or that of `ollama:name[:tag]` or
    `hf:owner/repo[@revision][:file]`.

    Raises:
        ValueError: an address, or a reference that may mean several files.
        GGUFError: Ollama has no model of that name, or nothing of that repository has been downloaded.
    """
    if text.startswith(HUB):
        from ggufphys.gguf.downloaded import downloaded_path  # what paths do without

        return str(downloaded_path(text))
    if "://" in text:
        raise ValueError(f"{text}: its weights are needed here, not the header alone: download the file, give its path")
    return plain(_file(text))


def _file(text: str) -> str:
    if not text:
        raise ValueError(EMPTY)
    if text.startswith(OLLAMA):
        from ggufphys.stores.ollama import ollama_path  # what paths do without

        return str(ollama_path(text))
    return text


def open_model(
    text: str | os.PathLike[str],
    *,
    use_cache: bool = True,
    on_bytes: Callable[[int], None] | None = None,
    known: "KnownArrays | None" = None,
) -> GGUFFile:
    """Open a path, `https://host/model.gguf`, `hf:owner/repo[@revision][:file]` or `ollama:name[:tag]`.

    Of a remote file only the header is fetched; `on_bytes` is told how many bytes arrive, from any thread. `known` is
    for local files, see `open_gguf`.

    Raises:
        GGUFError: not a readable GGUF; FetchError, one of these, when it cannot be fetched.
        OSError: the path does not exist or may not be read.
        ValueError: an address or reference that is malformed, or may mean several files.
    """
    if not is_remote(text):
        if "://" in os.fspath(text):
            raise ValueError(f"{os.fspath(text)}: expected a path, https://..., or hf:owner/repo[@revision][:file]")
        return open_gguf(_file(os.fspath(text)), known=known)
    from ggufphys.gguf.header_cache import HeaderCache, default_folder  # a tenth of a second that paths do without
    from ggufphys.gguf.remote import RemoteReader

    folder = default_folder() if use_cache else None
    cache = HeaderCache(folder) if folder is not None else None
    return RemoteReader(cache=cache, on_bytes=on_bytes).open(os.fspath(text))
