"""Ollama's store: a manifest for each name and tag, whose layers are files named by their digest.

`manifests/HOST/NAMESPACE/NAME/TAG` is JSON; the layer of type `application/vnd.ollama.image.model` is the GGUF file,
`blobs/sha256-DIGEST`. A name may leave out what is as usual: registry.ollama.ai, library, latest.

Source: Ollama's documentation (where models are stored, OLLAMA_MODELS); types/model/name.go, ParseName.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ggufphys.errors import GGUFError
from ggufphys.stores.places import Places, Stored, below, here
from ggufphys.units import parse_json

PREFIX: Final = "ollama:"
_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_MODEL: Final = "application/vnd.ollama.image.model"
_DIGEST: Final = re.compile(r"sha256[:-]([0-9a-f]{64})")
_SERVICE: Final = Path("usr/share/ollama/.ollama/models")  # where Linux's installer lets the service keep them


def ollama_folders(places: Places) -> tuple[Path, ...]:
    """OLLAMA_MODELS, or the user's folder and that of the service."""
    if named := places.variable("OLLAMA_MODELS"):
        return (named,)
    own = places.home / ".ollama" / "models"
    return (own, places.root / _SERVICE) if places.system == "Linux" else (own,)


def ollama_models(places: Places) -> Iterator[Stored]:
    """Every name whose manifest has a GGUF file."""
    for folder in ollama_folders(places):
        for manifest in below(folder / "manifests", "*/*/*/*"):
            path = _model_file(folder, manifest)
            if path is not None:
                host, namespace, name, tag = manifest.parts[-4:]
                short = _short(host, namespace, name, tag)
                yield Stored(store="Ollama", name=short, path=str(path), address=PREFIX + short)


def ollama_path(address: str, places: Places | None = None) -> Path:
    """The file behind `ollama:[[host/]namespace/]name[:tag]`.

    Raises:
        GGUFError: there is no such name; the message lists those that there are.
    """
    places = places or here()
    stored = {s.name.casefold(): Path(s.path) for s in ollama_models(places)}
    wanted = _full(address.removeprefix(PREFIX))
    found = stored.get(_short(*wanted).casefold())
    if found is not None:
        return found
    folders = " or ".join(map(str, ollama_folders(places)))
    names = ", ".join(sorted(stored)) or "no models, or none that may be read"
    raise GGUFError(f"{address}: no such model in {folders} (OLLAMA_MODELS says where else); there: {names}")


def _full(name: str) -> tuple[str, str, str, str]:
    """Host, namespace, name and tag."""
    *before, last = name.split("/")
    stem, _, tag = last.partition(":")
    host, namespace = before[-2:] if len(before) > 1 else (_HOST, *(before or (_NAMESPACE,)))
    return host, namespace, stem, tag or _TAG


def _short(host: str, namespace: str, name: str, tag: str) -> str:
    """A model's name as people write it: without the parts that are as usual."""
    head = f"{host}/{namespace}/" if host != _HOST else "" if namespace == _NAMESPACE else f"{namespace}/"
    return head + name + ("" if tag == _TAG else f":{tag}")


def _model_file(folder: Path, manifest: Path) -> Path | None:
    """The first layer that is a model; None where there is none, or no manifest that makes sense."""
    try:
        layers = parse_json(manifest.read_bytes())["layers"]
        digests = [layer["digest"] for layer in layers if layer["mediaType"] == _MODEL]
        match = _DIGEST.fullmatch(digests[0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return folder / "blobs" / f"sha256-{match[1]}" if match else None
