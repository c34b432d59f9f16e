"""Devices as llama.cpp has them: found, named, refused; RPC workers added and used."""

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggufphys.machine import llama_devices
from ggufphys.params import Device, Params, rpc_device
from server.engine.errors import EngineError
from server.engine.llama.devices import available_devices, probe
from server.engine.llama.library import load_library, load_model
from server.engine.llama.tiny_model import write_tiny_model
from tests.rpc_worker import workers

PARAMS = Params(n_ctx=256, n_batch=32, n_ubatch=32, n_threads=1, use_extra_bufts=False)


def evaluated(path: Path, params: Params) -> dict[str, Any]:
    """What the child prints."""
    answer = subprocess.run(
        [sys.executable, Path(__file__).with_name("rpc_child.py"), path, json.dumps(asdict(params))],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    document: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return document


def test_a_model_on_an_rpc_worker(tmp_path: Path) -> None:
    """With all or some layers on a worker the model computes what it computes here."""
    if not load_library().llama_supports_rpc():
        pytest.skip("llama-cpp-python is built without RPC")
    path = tmp_path / "tiny.gguf"
    write_tiny_model(path)
    with workers(1) as endpoints:
        device = rpc_device(endpoints[0])
        here, there, partly = (
            evaluated(path, params)
            for params in (
                PARAMS,
                replace(PARAMS, devices=(device,)),
                replace(PARAMS, devices=(device,), n_gpu_layers=1, override_tensor=(("attn", device.name),)),
            )
        )

    assert here["devices"] == []
    assert there["devices"] == partly["devices"] == [device.name]
    for result in (there, partly):
        difference, logits = np.subtract(result["logits"], here["logits"]), np.asarray(here["logits"])
        assert np.sum(difference**2) < 1e-3 * np.sum(logits**2)  # activations are quantised by other kernels


def test_what_this_build_has() -> None:
    """The module run by itself prints the devices that the process finds too."""
    answer = subprocess.run(
        [sys.executable, "-m", "server.engine.llama.list_devices"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    names = [device.name for device in available_devices(load_library())]

    assert [fields["name"] for fields in json.loads(answer.stdout)] == names


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    """A device that llama.cpp does not have is named, and what it has."""
    path = tmp_path / "tiny.gguf"
    write_tiny_model(path)
    with pytest.raises(EngineError, match="llama.cpp has no device CUDA9: it "):
        load_model(path, replace(PARAMS, devices=(Device(name="CUDA9"),)))


def test_nobody_listens(tmp_path: Path) -> None:
    """A worker that does not answer is an error, not llama.cpp's abort."""
    with socket.socket() as listener:  # bound, but not listening
        listener.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"RPC server {endpoint} does not answer"):
            probe(endpoint)
        if load_library().llama_supports_rpc():
            path = tmp_path / "tiny.gguf"
            write_tiny_model(path)
            with pytest.raises(EngineError, match="does not answer"):
                load_model(path, replace(PARAMS, devices=(rpc_device(endpoint),)))
    with pytest.raises(EngineError, match="'nowhere' is no address"):
        probe("nowhere")


def test_somebody_listens_and_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that serves somebody else is an error: llama.cpp would wait for ever."""
    monkeypatch.setattr(llama_devices, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the system connects, and nobody reads
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"RPC server {endpoint} is silent: it serves another client"):
            probe(endpoint)
        if load_library().llama_supports_rpc():
            path = tmp_path / "tiny.gguf"
            write_tiny_model(path)
            with pytest.raises(EngineError, match="is silent"):
                load_model(path, replace(PARAMS, devices=(rpc_device(endpoint),)))


def test_a_worker_that_is_free() -> None:
    """It answers, and another version, which hangs up, is left to llama.cpp."""
    if not load_library().llama_supports_rpc():
        pytest.skip("llama-cpp-python is built without RPC")
    with workers(1) as endpoints:
        probe(endpoints[0])
        probe(endpoints[0])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hanging_up = threading.Thread(target=lambda: listener.accept()[0].close())
        hanging_up.start()
        probe(f"127.0.0.1:{listener.getsockname()[1]}")
        hanging_up.join()
