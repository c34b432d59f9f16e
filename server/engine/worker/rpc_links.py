"""Is an RPC server still there? llama.cpp looks only when it has something to say, and waits for ever for an answer.

Its sockets are found among this process's descriptors, whose numbers llama.cpp does not tell. A look takes nothing from
them. A machine that is gone says no more, so the system is told to ask it now and then, and to give it up: then
llama.cpp's own waiting ends, too, and with it its process.

Source: llama.cpp 0c1e570 ggml/src/ggml-rpc/transport.cpp, socket_t::connect (IPv4, by gethostbyname), which sets
TCP_NODELAY alone.
"""

import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

LOST: Final = 76  # exit code of a worker that ends since a part of its model is gone
GONE_S: Final = 60  # a machine that has acknowledged nothing for so long is gone
_FOLDERS: Final = ("/proc/self/fd", "/dev/fd")  # of Linux, of macOS and BSD
# The first question comes after half of the time, and of three none may be answered.
_KEPT_ALIVE: Final = (("TCP_KEEPIDLE", GONE_S // 2), ("TCP_KEEPINTVL", GONE_S // 6), ("TCP_KEEPCNT", 3))
_UNSENT: Final = ("TCP_USER_TIMEOUT", GONE_S * 1000)  # in which what was sent must have been acknowledged


def lost(endpoints: Sequence[str]) -> str:
    """The first of these `host:port` whose connection has ended; empty if none has, or there is none.

    Where the system does not show a process's descriptors (Windows), none is found.
    """
    for endpoint in endpoints:
        for link in links(endpoint):
            with link:
                watch(link)
                if _has_ended(link):
                    return endpoint
    return ""


def links(endpoint: str) -> Iterator[socket.socket]:
    """Connections of this process to `host:port`, each as a copy to be closed."""
    host, _, port = endpoint.rpartition(":")
    try:
        address = socket.gethostbyname(host), int(port)
    except (OSError, ValueError):
        return
    for link in _sockets():
        try:
            is_it = link.getpeername() == address
        except OSError:  # it listens, or is not connected yet
            is_it = False
        if is_it:
            yield link
        else:
            link.close()


def watch(link: socket.socket) -> None:
    """Have the system find out when the other machine is gone."""
    with suppress(OSError):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (*_KEPT_ALIVE, _UNSENT):
            if hasattr(socket, name):
                link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _sockets() -> Iterator[socket.socket]:
    folder = next(filter(os.path.isdir, _FOLDERS), None)
    if folder is None:
        return
    for name in os.listdir(folder):  # noqa: PTH208 - numbers, not paths
        with suppress(OSError):  # closed meanwhile, as the one that lists them is
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                yield socket.socket(fileno=os.dup(int(name)))


def _has_ended(link: socket.socket) -> bool:
    try:
        return not link.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
