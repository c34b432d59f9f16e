"""What did llama.cpp compute in each node of its graphs? One after the other, from a child that waits for us."""

import json
import os
import select
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from ggufphys.gguf import GGMLType
from ggufphys.graph.ir import Shape, Tensor
from ggufphys.machine.children import describe, environment, module_command
from refengine.arrays import Array, show
from refengine.peers.llama_logits import TIMEOUT_S, LlamaError, LlamaRequest, not_done


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaNode:
    """A node as llama.cpp computed it: its name there, its operation, and its result, four axes as in numpy.

    `buffer` is where the result lies: `CPU`, or a device's name.
    """

    name: str
    op: str
    type: GGMLType
    ne: Shape
    array: Array
    buffer: str


class LlamaNodes:
    """The nodes of all batches of a request that compute something; views and the like are left out.

    Use it as a context manager: the child is ended with it. At most one node and a pipe's worth are in memory.

    Raises:
        LlamaError: llama.cpp refused, died, or said nothing for `timeout_s`.
    """

    def __init__(self, request: LlamaRequest, *, timeout_s: float = TIMEOUT_S) -> None:
        self._path = request.path
        self._timeout_s = timeout_s
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody reads would block the child
        self._child = subprocess.Popen(
            module_command("refengine.peers.trace_child"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=environment(),
        )  # fmt: skip
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(request.as_json(Path(os.devnull))).encode())
        self._child.stdin.close()

    def __enter__(self) -> "LlamaNodes":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._child.kill()
        self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()
        self._said.close()

    def next(self) -> LlamaNode | None:
        """The next node, None behind the last."""
        (length,) = struct.unpack("<I", self._read(4))
        head: dict[str, Any] = json.loads(bytes(self._read(length)))
        if "error" in head:
            raise LlamaError(f"{self._path}: llama.cpp refused: {head['error']}")
        if "end" in head:
            return None
        ne, nb = tuple(head["ne"]), tuple(head["nb"])
        raw = np.frombuffer(self._read(head["nbytes"]), np.uint8)
        tensor = Tensor(head["op"], GGMLType(head["type"]), ne, nb=nb)
        return LlamaNode(
            name=head["name"], op=head["op"], type=tensor.type, ne=tensor.ne, array=show(raw, tensor),
            buffer=head["buffer"],
        )  # fmt: skip

    def _read(self, nbytes: int) -> bytearray:
        assert self._child.stdout is not None
        pipe = self._child.stdout.fileno()
        data = bytearray(nbytes)
        rest = memoryview(data)
        while rest:
            if not select.select([pipe], [], [], self._timeout_s)[0]:
                raise not_done(str(self._path), self._timeout_s)
            n = os.readv(pipe, [rest])
            if not n:
                raise LlamaError(f"{self._path}: llama.cpp ended with {describe(self._child.wait())}: {self._words()}")
            rest = rest[n:]
        return data

    def _words(self) -> str:
        self._said.seek(0)
        return self._said.read()[-1500:].decode(errors="replace")
