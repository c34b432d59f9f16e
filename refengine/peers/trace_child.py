"""What does each node of llama.cpp's graph hold? Run as a child, `python -m refengine.peers.trace_child`.

It reads one request (as `llama_child`) from standard input and writes a record for each node that computes
something, in the order llama.cpp computes them: 4 bytes that say how long the next part is, a JSON object, and the
bytes that the object counts. It waits while nobody reads, so that no more than one node is in memory. The last record
is `{"end": true}`, or has an "error".

llama.cpp calls back after a node only when asked to stop there, so nodes are computed one by one: those of one backend
that it would otherwise fuse are not.
Source: llama.cpp 0c1e570 ggml/src/ggml-backend.cpp, ggml_backend_sched_compute_splits; ggml/include/ggml.h,
ggml_tensor.
"""

import ctypes
import json
import os
import struct
import sys
from typing import Any, Final

from refengine.peers.llama_child import Refused, decode, opened

NO_WORK: Final = frozenset({"NONE", "VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"})


class GgmlTensor(ctypes.Structure):
    """The first fields of the struct ggml_tensor."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


class Sender:
    """Writes records to a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._library: Any = None

    def use(self, library: Any) -> None:
        """The library that ggml's functions are looked up in."""
        library.ggml_op_name.restype = ctypes.c_char_p
        library.ggml_op_name.argtypes = [ctypes.c_int]
        library.ggml_nbytes.restype = ctypes.c_size_t
        library.ggml_nbytes.argtypes = [ctypes.c_void_p]
        library.ggml_backend_buffer_name.restype = ctypes.c_char_p
        library.ggml_backend_buffer_name.argtypes = [ctypes.c_void_p]
        library.ggml_backend_tensor_get.restype = None
        library.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        self._library = library

    def send(self, head: dict[str, Any], data: memoryview | None = None) -> None:
        """One record."""
        text = json.dumps({**head, "nbytes": 0 if data is None else data.nbytes}).encode()
        self._write(memoryview(struct.pack("<I", len(text)) + text))
        if data is not None:
            self._write(data)

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]

    def on_node(self, address: int, ask: bool, user_data: object) -> bool:
        """llama.cpp's callback: first whether the node is wanted, then with its result."""
        tensor = GgmlTensor.from_address(address)
        op = self._library.ggml_op_name(tensor.op).decode()
        if ask or op in NO_WORK:
            return op not in NO_WORK
        head = {
            "name": tensor.name.decode(errors="replace"),
            "op": op,
            "type": tensor.type,
            "ne": list(tensor.ne),
            "nb": list(tensor.nb),
            "buffer": self._library.ggml_backend_buffer_name(self._buffer(tensor)).decode(),
        }
        nbytes = self._library.ggml_nbytes(address)
        data = (ctypes.c_char * nbytes)()  # which may lie on a device
        self._library.ggml_backend_tensor_get(address, data, 0, nbytes)
        self.send(head, memoryview(data).cast("B"))
        return True

    def _buffer(self, tensor: GgmlTensor) -> int:
        """The buffer in which it lies, a view in that of what it shows."""
        of = tensor if tensor.view_src is None else GgmlTensor.from_address(tensor.view_src)
        pointer: int = of.buffer
        return pointer


def main() -> None:
    """Answer the one request."""
    request = json.load(sys.stdin)
    descriptor = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not get between the records
    sender, said = Sender(descriptor), list[str]()
    try:
        api, _, context = opened(request, said, sender.on_node)
        sender.use(api.llama_cpp._lib)
        for batch in request["batches"]:
            decode(api, context, batch, said)
    except Refused as refused:
        sender.send({"error": str(refused)})
        return
    sender.send({"end": True})


if __name__ == "__main__":
    main()
