"""What the tests of remote models serve, and an environment without proxies, tokens and pauses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ggufphys.gguf import prefix
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import Typed, WriteValue, data_bytes, encode_header
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


def shards(stem: str, changes: Mapping[int, Mapping[str, WriteValue | None]] | None = None) -> dict[str, bytes]:
    """That model split into three files of 7, 7 and 6 tensors, by name; `changes` of keys by file, None: without it."""
    tensors, files = llama_tensors(), {}
    for number in range(3):
        own = tensors[7 * number : 7 * number + 7]
        wanted: dict[str, WriteValue | None] = {
            **(llama_metadata() if number == 0 else {}),
            "split.no": Typed(number, ValueType.UINT16),
            "split.count": Typed(3, ValueType.UINT16),
            "split.tensors.count": Typed(20, ValueType.INT32),
            **(changes or {}).get(number, {}),
        }
        keys = {key: value for key, value in wanted.items() if value is not None}
        files[f"{stem}-{number + 1:05d}-of-00003.gguf"] = encode_header(keys, own) + bytes(data_bytes(own))
    return files
