"""The cache of the Hugging Face Hub, which llama.cpp shares since it downloads into it, and llama.cpp's older folder.

A repository is `models--owner--name`; `refs/REVISION` holds a commit, `snapshots/COMMIT/` links to files in `blobs/`.
Before that llama.cpp kept flat files, `owner_name_file.gguf`, in a folder of its own.

Source: huggingface_hub's documentation of its cache and its environment variables; llama.cpp 0c1e570
common/hf-cache.cpp, get_cache_directory, get_cached_files; common/common.cpp, fs_get_cache_directory.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ggufphys.stores.places import Places, Stored, below, gguf_files

_PREFIX: Final = "models--"


def huggingface_models(places: Places) -> Iterator[Stored]:
    """The GGUF files of huggingface_hub's cache: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME."""
    yield from hub_models(hub_folder(places), "Hugging Face")


def llama_cpp_models(places: Places) -> Iterator[Stored]:
    """The files of llama.cpp's own folder, of either layout: LLAMA_CACHE, or where its system keeps caches."""
    folder = llama_cpp_folder(places)
    if folder is not None:
        yield from hub_models(folder, "llama.cpp")
        for path in below(folder, "*.gguf"):
            yield Stored(store="llama.cpp", name=path.name, path=str(path))


def hub_folder(places: Places) -> Path:
    """The cache of the Hub."""
    home = places.variable("HF_HOME") or places.cache / "huggingface"
    return places.variable("HF_HUB_CACHE") or places.variable("HUGGINGFACE_HUB_CACHE") or home / "hub"


def llama_cpp_folder(places: Places) -> Path | None:
    """llama.cpp's own folder; None on a Windows that has no LOCALAPPDATA."""
    if named := places.variable("LLAMA_CACHE"):
        return named
    if places.system == "Windows":
        local = places.variable("LOCALAPPDATA")
        return None if local is None else local / "llama.cpp"
    return (places.home / "Library" / "Caches" if places.system == "Darwin" else places.cache) / "llama.cpp"


def hub_models(folder: Path, store: str) -> Iterator[Stored]:
    """The files of a folder in the Hub's layout; one that several revisions have is listed where `main` has it."""
    for repo in below(folder, f"{_PREFIX}*--*"):
        owner_and_name = repo.name.removeprefix(_PREFIX).replace("--", "/", 1)
        seen: set[str] = set()
        for snapshot in _snapshots(repo):
            for path in sorted(gguf_files(snapshot)):
                blob = os.path.realpath(path)  # of links that lead to each other some path, where `resolve` raises
                if blob not in seen:
                    seen.add(blob)
                    name = f"{owner_and_name}/{path.relative_to(snapshot).as_posix()}"
                    yield Stored(store=store, name=name, path=str(path))


def snapshots_of(repo: str, revision: str, places: Places) -> Iterator[Path]:
    """The folders where files of a repository `owner/name` lie, at a revision: a branch, a tag or a commit."""
    for cache in filter(None, (hub_folder(places), llama_cpp_folder(places))):
        folder = cache / f"{_PREFIX}{repo.replace('/', '--')}"
        snapshot = folder / "snapshots" / (_commit(folder, revision) or revision)
        if snapshot.is_dir():
            yield snapshot


def _commit(repo: Path, revision: str) -> str:
    try:
        return (repo / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _snapshots(repo: Path) -> list[Path]:
    main = _commit(repo, "main")
    return sorted(below(repo / "snapshots", "*"), key=lambda path: path.name != main)
