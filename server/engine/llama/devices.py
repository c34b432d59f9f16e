"""Devices for engines: `ggufphys.machine.llama_devices`, whose failures are the engine's.

`python -m server.engine.llama.list_devices` prints them as JSON, for a parent that keeps llama.cpp out of itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ggufphys.machine import llama_devices
from ggufphys.machine.llama_devices import BACKEND_PATH, DeviceError, available_devices, has_blas
from ggufphys.params import Params
from server.engine.errors import EngineError


def load_backend(api: ModuleType) -> None:
    """As `llama_devices.load_backend`. Raises EngineError."""
    with _failures():
        llama_devices.load_backend(api)


def use_devices(api: ModuleType, native: Any, params: Params) -> object:
    """As `llama_devices.use_devices`. Raises EngineError."""
    with _failures():
        return llama_devices.use_devices(api, native, params)


def probe(endpoint: str) -> None:
    """As `llama_devices.probe`. Raises EngineError."""
    with _failures():
        llama_devices.probe(endpoint)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except DeviceError as error:
        raise EngineError(str(error)) from error


__all__ = ["BACKEND_PATH", "available_devices", "has_blas", "load_backend", "probe", "use_devices"]
