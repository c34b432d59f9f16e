"""Python objects through a pipe between a process and its child. Both ends are ours.

A length and a letter, then the object: a plain tuple (of tuples, numbers, bytes) as marshal writes it, which takes a
fifth of the time, anything else as a pickle.
"""

import marshal
import pickle
import struct
import threading
from typing import Any, BinaryIO, Final

HEAD: Final = struct.Struct("<Qc")
PLAIN, PICKLED = b"m", b"p"


class Sender:
    """The writing end; safe to use from any thread."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Write a message, whole. Raises OSError or ValueError when the other end or the file is closed."""
        if type(message) is tuple:
            data, kind = marshal.dumps(message), PLAIN
        else:
            data, kind = pickle.dumps(message, protocol=5), PICKLED
        with self._lock:
            self._file.write(HEAD.pack(len(data), kind))
            self._file.write(data)
            self._file.flush()

    def close(self) -> None:
        """Close the file, if nobody is writing."""
        with self._lock:
            self._file.close()


def receive(file: BinaryIO) -> Any:
    """Read a message. Raises EOFError when the other end is closed, in the middle of a message or not."""
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    n, kind = HEAD.unpack(head)
    data = file.read(n)
    if len(data) < n:
        raise EOFError
    return marshal.loads(data) if kind == PLAIN else pickle.loads(data)
