"""A machine with models in every store, each where its program would have put it."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from ggufphys.stores import Places
from tests.ggufphys.models import tiny_llama

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def places(home: Path, system: str = "Linux", **environment: str) -> Places:
    """A machine whose root and home lie below a folder of the test's."""
    return Places(environment=environment, home=home, system=system, root=home / "root")


def hub_file(hub: Path, repo: str, file: str, *, commit: str = COMMIT, ref: str = "main") -> Path:
    """A file as huggingface_hub keeps it: a blob, linked from a snapshot, which a revision names."""
    folder = hub / f"models--{repo.replace('/', '--')}"
    blob = folder / "blobs" / sha256(file.encode()).hexdigest()
    link = folder / "snapshots" / commit / file
    for parent in (blob.parent, link.parent, folder / "refs"):
        parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / ref).write_text(commit)
    if not blob.exists():
        tiny_llama(blob)
    link.symlink_to(blob)
    return link


def ollama_model(folder: Path, name: str, *, kind: str = "application/vnd.ollama.image.model") -> Path:
    """A model as Ollama keeps it: a manifest by host, namespace, name and tag, and a blob by its digest."""
    digest = sha256(name.encode()).hexdigest()
    manifest, blob = folder / "manifests" / name, folder / "blobs" / f"sha256-{digest}"
    for parent in (manifest.parent, blob.parent):
        parent.mkdir(parents=True, exist_ok=True)
    tiny_llama(blob)
    layers: list[Mapping[str, object]] = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + 64 * "0", "size": 3},
        {"mediaType": kind, "digest": f"sha256:{digest}", "size": blob.stat().st_size},
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return blob


def plain_file(path: Path) -> Path:
    """A file that lies in a folder as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return tiny_llama(path)
