"""An RPC worker of llama.cpp in pure Python, on the CPU: a device for machines without one.

Run as a child, `python bench/running/rpc_worker.py PORT`; `workers(n)` starts some on free loopback ports and ends
them.
"""

import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

START_S = 20.0


@contextmanager
def workers(count: int) -> Iterator[tuple[str, ...]]:
    """The endpoints of `count` workers that accept connections."""
    children: list[subprocess.Popen[bytes]] = []
    try:
        endpoints = []
        for _ in range(count):
            port = _free_port()
            children.append(
                subprocess.Popen(
                    [sys.executable, "-P", __file__, str(port)],  # modules beside this one hide none of Python's
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                )
            )
            endpoints.append(f"127.0.0.1:{port}")
        for endpoint, child in zip(endpoints, children, strict=True):
            _wait_for(endpoint, child)
        yield tuple(endpoints)
    finally:
        for child in children:
            child.kill()
            child.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_for(endpoint: str, child: "subprocess.Popen[bytes]") -> None:
    host, port = endpoint.split(":")
    deadline = time.monotonic() + START_S
    while child.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"the RPC worker at {endpoint} does not answer (exit status {child.poll()})")


def main(port: int) -> None:
    """Serve the CPU as a device until killed."""
    from ggufphys.machine import llama_env

    llama_env.prepare()
    import llama_cpp

    library = llama_cpp.llama_cpp._lib
    for name, arguments in (
        ("ggml_backend_reg_by_name", [ctypes.c_char_p]),
        ("ggml_backend_reg_get_proc_address", [ctypes.c_void_p, ctypes.c_char_p]),
        ("ggml_backend_dev_by_type", [ctypes.c_int]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_void_p, arguments
    llama_cpp.llama_backend_init()
    registry = library.ggml_backend_reg_by_name(b"RPC")
    address = library.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_rpc_start_server")
    start = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)(
        address
    )
    devices = (ctypes.c_void_p * 1)(library.ggml_backend_dev_by_type(0))  # the CPU
    start(f"127.0.0.1:{port}".encode(), None, 1, 1, devices)


if __name__ == "__main__":
    main(int(sys.argv[1]))
