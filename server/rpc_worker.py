"""`ggufphys rpc-worker`: this machine's memory and processors as a device of another machine's llama.cpp.

llama.cpp's own RPC server, started through the library that is installed, which must be built with RPC. It serves one
client at a time, asks nobody who he is and encrypts nothing: never on an open network.

Source: llama.cpp 0c1e570 ggml/src/ggml-rpc/ggml-rpc.cpp, ggml_backend_rpc_start_server.
"""

import argparse
import ctypes
import os
import signal
import socket
from pathlib import Path
from typing import Any, Final

from ggufphys.errors import OutputError
from ggufphys.flags.numbers import count
from ggufphys.machine.llama_devices import Backends
from ggufphys.params import MAX_THREADS
from ggufphys.units import format_bytes
from server.engine.errors import EngineError
from server.engine.llama.library import default_threads, load_library
from server.flags.values import port
from server.journal import say, warn
from server.net.addresses import is_local

PORT: Final = 50052  # of llama.cpp's rpc-server
_TYPE_CPU, _TYPE_GPU, _TYPE_IGPU = 0, 1, 2  # ggml_backend_dev_type


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags; rpc-server's names."""
    parser.add_argument("-H", "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("-p", "--port", type=_port, default=PORT, help=f"port to listen on (default {PORT})")
    parser.add_argument(
        "-d", "--device", default="", metavar="NAME,...", help="what to offer (default: GPUs, else CPU)"
    )
    parser.add_argument("-t", "--threads", type=_threads, default=0, metavar="N", help="threads of the CPU device")
    parser.add_argument(
        "-c", "--cache", type=Path, metavar="DIR", help="keep weights here, so that they come only once"
    )


def _port(text: str) -> int:
    number = port(text)
    if not number:  # any that is free: nobody would be told which
        raise argparse.ArgumentTypeError("'0' is no port that --rpc can name (expected 1 to 65535)")
    return number


def _threads(text: str) -> int:
    number = count(text)
    if number > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected at most {MAX_THREADS} (GGML_MAX_N_THREADS)")
    return number


def run(args: argparse.Namespace) -> int:
    """Serve until a signal.

    Raises:
        EngineError: llama.cpp is built without RPC.
        ValueError: it does not have a device, or the address cannot be listened on.
    """
    if not args.host:
        raise ValueError("--host is empty: expected an address to listen on, such as 127.0.0.1")
    from server.start.beforehand import host_memory  # psutil, which --help does without

    api = load_library()
    backends = Backends(api)
    registry = backends.call("ggml_backend_reg_by_name", ctypes.c_void_p, b"RPC")
    if not registry:
        raise EngineError(
            "llama-cpp-python is built without RPC: reinstall it with CMAKE_ARGS=-DGGML_RPC=ON pip install "
            "--no-binary llama-cpp-python llama-cpp-python"
        )
    devices = chosen(backends, args.device)
    try_address(args.host, args.port)
    if not is_local(args.host):
        warn(
            f"warning: anyone who reaches {args.host}:{args.port} may use and crash this worker: no key, no encryption"
        )
    n_threads = args.threads or default_threads()
    endpoint = f"{args.host}:{args.port}"
    free = format_bytes(host_memory().available_bytes)
    names = ", ".join(backends.name(device) for device in devices)
    cache = b"" if args.cache is None else os.fsencode(args.cache)
    if args.cache is not None:
        try:
            args.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"--cache {args.cache}: no folder can be made there ({error.strerror})") from error
    start = ctypes.CFUNCTYPE(
        None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p
    )(
        backends.call(
            "ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p(registry),
            b"ggml_backend_rpc_start_server",
        )
    )  # fmt: skip
    say(f"{endpoint} offers {names} with {n_threads} threads, {free} of memory are free; for --rpc {endpoint}")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # llama.cpp does not come back to Python
    pointers = (ctypes.c_void_p * len(devices))(*devices)
    start(endpoint.encode(), cache or None, n_threads, len(devices), ctypes.cast(pointers, ctypes.c_void_p))
    raise EngineError(f"llama.cpp's RPC server at {endpoint} has ended")


def chosen(backends: Any, names: str) -> list[int]:
    """The devices of these names; the GPUs there are, or else the CPU, where none is named."""
    found = {backends.name(device): device for device in backends.devices(_TYPE_GPU, _TYPE_IGPU, _TYPE_CPU)}
    if names:
        missing = [name for name in names.split(",") if name not in found]
        if missing:
            raise ValueError(f"llama.cpp has no device {missing[0]!r}: it has {', '.join(found)}")
        return [found[name] for name in names.split(",")]
    gpus = [device for device in backends.devices(_TYPE_GPU, _TYPE_IGPU)]
    return gpus or list(backends.devices(_TYPE_CPU))[:1]


def try_address(host: str, port: int) -> None:
    """Raise ValueError where nobody could listen: llama.cpp would say so and end."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while")[0]  # Python says the address once more
        raise ValueError(f"cannot listen on {host}:{port}: {why}; choose another --host or --port") from error
