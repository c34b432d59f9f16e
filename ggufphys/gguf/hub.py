"""What does `hf:owner/repo[@revision][:file]` name? References to the Hugging Face Hub, its listing and its login.

The variables are huggingface_hub's: HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME. As behind llama-server's -hf, a
quantisation's name (`:Q4_K_M`) will do for a file.

Source: huggingface_hub's documentation of environment variables; the Hub's API, /api/models/{repo}/tree/{revision}.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from ggufphys.errors import FetchError
from ggufphys.frozen import dataclass
from ggufphys.gguf.http import Access, get_json, origin
from ggufphys.gguf.split import SHARD_NAME
from ggufphys.units import format_bytes

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
MAX_PAGES: Final = 50  # of a listing; a page has a thousand files
_REFERENCE: Final = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^:]+))?(?::(?P<file>.+))?")
# File names of attachments, which nobody means who names a repository (llama.cpp 0c1e570 common/download.cpp,
# gguf_filename_is_model).
_ATTACHMENTS: Final = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A repository at a revision, and which file of it; an empty `file` means the only one."""

    repo: str
    revision: str = "main"
    file: str = ""

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf:{self.repo}{revision}{f':{self.file}' if self.file else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A GGUF file of a repository; of a split model the first shard, with the bytes of all."""

    path: str
    nbytes: int


def parse_reference(text: str) -> Reference:
    """Take `hf:owner/repo[@revision][:file]` apart.

    Raises:
        ValueError: it is not of that form.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} does not name a file on the Hub: expected hf:owner/repo[@revision][:file]")
    return Reference(repo=match["repo"], revision=match["revision"] or "main", file=match["file"] or "")


def endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, or the public one."""
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def token() -> str:
    """The user's token: HF_TOKEN, or the file that `hf auth login` wrote; empty when there is none."""
    named = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if named:
        return named.strip()
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
        return Path(os.environ.get("HF_TOKEN_PATH") or home / "token").expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError, RuntimeError):
        return ""


def is_hub(url: str) -> bool:
    """Does the address lie on the Hub, so that the user's token may go there?"""
    return origin(url) == origin(endpoint())


def hub_access() -> Access:
    """The token as a header, and what to do when it is missing or not enough."""
    terms = "private, or gated (accept its terms on the repository's page), or there is no such repository"
    if secret := token():
        return Access(
            authorization=f"Bearer {secret}", advice=f"the token that was sent (HF_TOKEN) has no access: it is {terms}"
        )
    return Access(advice=f"it is {terms}; to log in set HF_TOKEN, or run `hf auth login`")


def resolve(text: str) -> str:
    """The address of the file that a reference names, asking the Hub for its files where that is left open.

    Raises:
        ValueError: not a reference, or several files that it may mean; the message lists them.
        FetchError: the Hub cannot be asked, or has no such file.
    """
    reference = parse_reference(text)
    if reference.file.endswith(".gguf"):
        return file_url(reference, reference.file)
    return file_url(reference, choose(reference, list_files(reference)).path)


def file_url(reference: Reference, path: str) -> str:
    """Where the bytes of a file are."""
    return f"{endpoint()}/{reference.repo}/resolve/{quote(reference.revision, safe='')}/{quote(path)}"


def bytes_url(url: str) -> str:
    """The address itself, but of a file's page on the Hub (`/blob/`) that of its bytes (`/resolve/`)."""
    parts = urlsplit(url)
    if not is_hub(url):
        return url
    return urlunsplit(parts._replace(path=re.sub(r"^(/[^/]+/[^/]+)/blob/", r"\1/resolve/", parts.path)))


def list_files(reference: Reference) -> tuple[HubFile, ...]:
    """The GGUF files of a repository by path, each split model as one.

    Raises:
        FetchError: the Hub cannot be asked, or its answer is not understood.
    """
    revision = quote(reference.revision, safe="")
    url = f"{endpoint()}/api/models/{reference.repo}/tree/{revision}?recursive=1"
    sizes: dict[str, int] = {}
    for _ in range(MAX_PAGES):
        page, following = get_json(url, hub_access())
        try:
            sizes |= {row["path"]: int(row.get("size", 0)) for row in page if row["path"].endswith(".gguf")}
        except (TypeError, KeyError, AttributeError, ValueError):
            raise FetchError(f"{url}: expected a list of files, the server sent something else") from None
        if not following or not is_hub(following):
            break
        url = following
    return split_models_as_one(sizes)


def choose(reference: Reference, files: Sequence[HubFile], *, kind: str = "GGUF file") -> HubFile:
    """The one file that is meant: by the name of its quantisation, or because it is the only model.

    `kind` is what messages call these files.

    Raises:
        ValueError: there are several; the message lists them.
        FetchError: there is none.
    """
    if not files:
        raise FetchError(f"{Reference(repo=reference.repo, revision=reference.revision)}: no {kind} in it")
    tag = re.compile(rf"(?:^|[-._/]){re.escape(reference.file)}(?:[-./]|$)", re.IGNORECASE)
    meant = [f for f in files if not reference.file or tag.search(f.path)]
    models = [f for f in meant if not any(name in f.path.rpartition("/")[2] for name in _ATTACHMENTS)]
    if len(models) == 1:
        return models[0]
    if not models and len(meant) == 1:
        return meant[0]
    shown = models or meant or files
    sizes = [format_bytes(f.nbytes) for f in shown]
    width, size_width = max(len(f.path) for f in shown), max(map(len, sizes))
    head = "hf:" + reference.repo + ("" if reference.revision == "main" else f"@{reference.revision}")
    lines = [f"  {head}:{f.path:{width}}  {size:>{size_width}}" for f, size in zip(shown, sizes, strict=True)]
    why = f"{len(meant)} {kind}s are named so" if meant else f"no {kind} is named so"
    raise ValueError(
        "\n".join([f"{reference}: {why if reference.file else f'{len(shown)} {kind}s'}; say which:", *lines])
    )


def split_models_as_one(sizes: dict[str, int]) -> tuple[HubFile, ...]:
    """GGUF files by path, of bytes by path: each split model is one."""
    whole: dict[str, tuple[str, int]] = {}
    for path in sorted(sizes):
        match = re.fullmatch(SHARD_NAME, path)
        key = f"{match['stem']}-of-{match['count']}" if match else path
        first, nbytes = whole.get(key, (path, 0))
        whole[key] = (first, nbytes + sizes[path])
    return tuple(HubFile(path=path, nbytes=nbytes) for path, nbytes in whole.values())
