"""Which devices has this build of llama.cpp, and how is a model told to use them? `Params` to llama.cpp's pointers.

llama.cpp is the caller's, loaded already (`api`): nothing here imports it.

Source: llama.cpp 0c1e570 ggml/include/ggml-backend.h; common/arg.cpp, add_rpc_devices; serving over RPC: failing to
connect ends the process (ggml-rpc.cpp, RPC_STATUS_ASSERT), so the port is tried first; who is not answered waits for
ever (rpc_serve_client serves one client after the other).
"""

import ctypes
import os
import socket
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

from ggufphys.errors import GGUFPhysError
from ggufphys.params import CPU_BUFFER, Device, Params, rpc_device

BACKEND_PATH: Final = "GGML_BACKEND_PATH"
CONNECT_TIMEOUT_S: Final = 5.0
# RPC_CMD_HELLO, whose number stays, and 24 bytes of what the client can do: nothing beside TCP (rpc_msg_hello_req).
_HELLO: Final = bytes([14]) + (24).to_bytes(8, "little") + bytes(24)
SPLIT_MODES: Final = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
_TYPE_CPU, _TYPE_GPU, _TYPE_IGPU = 0, 1, 2  # ggml_backend_dev_type
_MAX_SPLITS: Final = 128  # tensor_split is read for as many devices as there are


class DeviceError(GGUFPhysError):
    """llama.cpp does not have a device, or cannot reach it."""


class _Override(ctypes.Structure):
    """llama_model_tensor_buft_override."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p))


class _Properties(ctypes.Structure):
    """ggml_backend_dev_props."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("caps", ctypes.c_bool * 5),
    )


class Backends:
    """llama.cpp's registry of devices, by ctypes: llama-cpp-python has no API for it."""

    def __init__(self, api: ModuleType) -> None:
        # A second copy of libggml would have a registry of its own: all symbols come through the loaded library,
        # which finds those of its dependencies too, except on Windows.
        self.library = ctypes.CDLL("ggml.dll") if sys.platform == "win32" else api.llama_cpp._lib

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call a function of ggml whose arguments are pointers, strings or sizes."""
        function = getattr(self.library, name)
        function.restype = result
        function.argtypes = [_argument_type(a) for a in arguments]
        return function(*arguments)

    def devices(self, *types: int) -> Iterator[int]:
        """Pointers of all devices of some types."""
        for i in range(self.call("ggml_backend_dev_count", ctypes.c_size_t)):
            pointer = self.call("ggml_backend_dev_get", ctypes.c_void_p, i)
            if self.call("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p(pointer)) in types:
                yield pointer

    def buffer_type(self, device: int) -> int:
        """The pointer of a device's own buffer type."""
        pointer: int = self.call("ggml_backend_dev_buffer_type", ctypes.c_void_p, ctypes.c_void_p(device))
        return pointer

    def name(self, device: int) -> str:
        """A device's name as `Device` has it; of an RPC server's, that of its buffers, in which the address stands."""
        name = bytes(self.call("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p(device))).decode()
        if not name.startswith("RPC"):
            return name
        buffer_type = ctypes.c_void_p(self.buffer_type(device))
        return bytes(self.call("ggml_backend_buft_name", ctypes.c_char_p, buffer_type)).decode()

    def properties(self, device: int) -> "_Properties":
        """What a device says of itself."""
        properties = _Properties()
        self.call("ggml_backend_dev_get_props", None, ctypes.c_void_p(device), ctypes.pointer(properties))
        return properties

    def add_rpc_server(self, endpoint: str) -> None:
        """Register the devices of an RPC server; a server that is registered already is left as it is.

        Raises:
            DeviceError: llama.cpp is built without RPC, or nothing listens there.
        """
        registry = self.call("ggml_backend_reg_by_name", ctypes.c_void_p, b"RPC")
        if not registry:
            raise DeviceError(
                f"RPC server {endpoint}: llama-cpp-python is built without RPC; reinstall it with "
                "CMAKE_ARGS=-DGGML_RPC=ON pip install --no-binary llama-cpp-python llama-cpp-python"
            )
        if rpc_device(endpoint).name in (self.name(d) for d in self.devices(_TYPE_GPU)):
            return  # a second connection would wait for ever: a server serves one client at a time
        probe(endpoint)
        address = self.call(
            "ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p(registry),
            b"ggml_backend_rpc_add_server",
        )  # fmt: skip
        server = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(address)(endpoint.encode())
        if not server:
            raise DeviceError(f"RPC server {endpoint} offers no devices")
        self.call("ggml_backend_register", None, ctypes.c_void_p(server))


def load_backend(api: ModuleType) -> None:
    """Load the backend that GGML_BACKEND_PATH names, as llama.cpp's own programs do.

    Raises:
        DeviceError: it is no backend of this ggml.
    """
    path = os.environ.get(BACKEND_PATH)
    if path and not Backends(api).call("ggml_backend_load", ctypes.c_void_p, os.fsencode(path)):
        raise DeviceError(f"{BACKEND_PATH} is {path}, which this build of ggml cannot load as a backend")


def has_blas(api: ModuleType) -> bool:
    """Is a BLAS backend built in or loaded? Then contexts use it on the host, whatever they are told."""
    return Backends(api).call("ggml_backend_reg_by_name", ctypes.c_void_p, b"BLAS") is not None


def available_devices(api: ModuleType) -> tuple[Device, ...]:
    """The GPUs that this build finds and llama.cpp would use: one that two backends see once, integrated ones only
    where there is no other.

    Source: llama.cpp 0c1e570 src/llama.cpp, llama_prepare_model_devices.
    """
    backends = Backends(api)
    found: dict[object, Device] = {}
    for pointer in list(backends.devices(_TYPE_GPU)) or list(backends.devices(_TYPE_IGPU)):
        properties = backends.properties(pointer)
        device = Device(name=backends.name(pointer), memory_bytes=properties.memory_free)
        found.setdefault(properties.device_id or pointer, device)
    return tuple(found.values())


def use_devices(api: ModuleType, native: Any, params: Params) -> object:
    """Tell `native` (llama_model_params) which devices to use and how; keep the result alive until the model is loaded.

    Without devices in `params` the host alone is used, whatever the build has.

    Raises:
        DeviceError: llama.cpp does not have a device, or an RPC server does not answer.
    """
    backends = Backends(api)
    for endpoint in dict.fromkeys(d.endpoint for d in params.devices if d.endpoint):
        backends.add_rpc_server(endpoint)
    known = {backends.name(p): p for p in backends.devices(_TYPE_GPU, _TYPE_IGPU)}
    for device in params.devices:
        if device.name not in known:
            have = f"it has {', '.join(known)}" if known else "it is built for the CPU alone"
            raise DeviceError(f"llama.cpp has no device {device.name}: {have}")
    devices = (ctypes.c_void_p * (len(params.devices) + 1))(*(known[d.name] for d in params.devices), None)
    split = (ctypes.c_float * _MAX_SPLITS)(*params.tensor_split)
    overrides = _overrides(backends, params, known)
    native.devices = ctypes.cast(devices, ctypes.c_void_p)
    native.n_gpu_layers = params.n_gpu_layers if params.devices else 0
    native.split_mode = SPLIT_MODES[params.split_mode]
    native.main_gpu = params.main_gpu
    native.tensor_split = split
    native.no_host = params.no_host
    if overrides is not None:
        native.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
    return devices, split, overrides


def probe(endpoint: str) -> None:
    """Find out whether something listens at `host:port` and has time for us.

    One that hangs up is no error here: it may speak another version of the protocol, of which llama.cpp knows more.

    Raises:
        DeviceError: nothing does, or it says nothing, or the address is none.
    """
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S) as server:
            try:
                server.sendall(_HELLO)
                server.recv(1)
            except TimeoutError:
                raise DeviceError(
                    f"RPC server {endpoint} is silent: it serves another client (it takes one at a time), or is no RPC "
                    "server of llama.cpp"
                ) from None
            except ConnectionError:
                pass
    except ValueError:
        raise DeviceError(f"RPC server {endpoint!r} is no address (expected host:port)") from None
    except OSError as error:
        raise DeviceError(f"RPC server {endpoint} does not answer: {error.strerror or error}") from error


def _overrides(backends: Backends, params: Params, known: dict[str, int]) -> "ctypes.Array[_Override] | None":
    pairs = list(params.override_tensor)
    pairs += [(rf"blk\.{il}\.ffn_(up|down|gate|gate_up)_(ch|)exps", CPU_BUFFER) for il in range(params.n_cpu_moe)]
    if not pairs:
        return None
    cpu = next(backends.devices(_TYPE_CPU))
    buffers = {name: backends.buffer_type(pointer) for name, pointer in (*known.items(), (CPU_BUFFER, cpu))}
    rows = [_Override(pattern.encode(), buffers[buffer]) for pattern, buffer in pairs]
    return (_Override * (len(rows) + 1))(*rows, _Override(None, None))


def _argument_type(value: Any) -> Any:
    if isinstance(value, bytes):
        return ctypes.c_char_p
    return ctypes.c_size_t if isinstance(value, int) else type(value)
