"""What the tests of remote models serve, and an environment without proxies, tokens and pauses."""

from pathlib import Path
from typing import Any

import pytest

from ggufphys.gguf import prefix
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import Typed, data_bytes, encode_header
from tests.ggufphys.models import llama_metadata, llama_tensors


def without_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Forget the proxies, the login and the caches of the machine that the tests run on."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(folder / "huggingface"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr(prefix, "FIRST_PAUSE_S", 0.0)


def model(extra: dict[str, Any] | None = None, *, data: int | None = None) -> bytes:
    """A two-layer llama with more metadata, its data zeros (as many as the tensors need, unless said)."""
    tensors = llama_tensors()
    header = encode_header({**llama_metadata(), **(extra or {})}, tensors)
    return header + bytes(data_bytes(tensors) if data is None else data)


def shards(stem: str) -> dict[str, bytes]:
    """That model split into three files of 7, 7 and 6 tensors, by name."""
    tensors, files = llama_tensors(), {}
    for number in range(3):
        own = tensors[7 * number : 7 * number + 7]
        split = {"split.no": number, "split.count": 3, "split.tensors.count": 20}
        keys = {
            **(llama_metadata() if number == 0 else {}),
            **{key: Typed(value, ValueType.UINT16) for key, value in split.items()},
        }
        files[f"{stem}-{number + 1:05d}-of-00003.gguf"] = encode_header(keys, own) + bytes(data_bytes(own))
    return files
