"""Python objects through a pipe between a process and its child: a length, then a pickle. Both ends are ours."""

import pickle
import struct
import threading
from typing import Any, BinaryIO, Final

LENGTH: Final = struct.Struct("<Q")


class Sender:
    """The writing end; safe to use from any thread."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Write a message, whole. Raises OSError or ValueError when the other end or the file is closed."""
        data = pickle.dumps(message, protocol=5)
        with self._lock:
            self._file.write(LENGTH.pack(len(data)) + data)
            self._file.flush()

    def close(self) -> None:
        """Close the file, if nobody is writing."""
        with self._lock:
            self._file.close()


def receive(file: BinaryIO) -> Any:
    """Read a message. Raises EOFError when the other end is closed, in the middle of a message or not."""
    head = file.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (n,) = LENGTH.unpack(head)
    data = file.read(n)
    if len(data) < n:
        raise EOFError
    return pickle.loads(data)
