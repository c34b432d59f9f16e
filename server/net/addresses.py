"""Where does the server listen? Addresses by commas, or paths of Unix sockets, which end in `.sock`, as llama-server's.

Source: llama.cpp 0c1e570 common/arg.cpp, --host; tools/server/server-http.cpp, server_http_context::init, start.
"""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISSOCK
from typing import Final

SOCKET: Final = ".sock"
HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # of an address that means every interface, this machine's own


def split(hosts: str) -> tuple[str, ...]:
    """The addresses of --host, one by one.

    Raises:
        ValueError: there is none. The empty address would be every interface's, which an unset variable must not open.
    """
    found = tuple(filter(None, map(str.strip, hosts.split(","))))
    if not found:
        raise ValueError("it is empty, expected an address such as 127.0.0.1 (0.0.0.0: every interface)")
    return found


def is_local(host: str) -> bool:
    """Whether nobody from another machine comes by it."""
    return host in ("127.0.0.1", "localhost", "::1") or host.endswith(SOCKET)


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket bound to an address, by the name that was given for it."""

    host: str
    socket: socket.socket

    @property
    def port(self) -> int:
        """The port that it listens on; 0 of a Unix socket."""
        return 0 if self.host.endswith(SOCKET) else int(self.socket.getsockname()[1])

    @property
    def url(self) -> str:
        """What clients are given; an address that means every interface is named by this machine's own."""
        if self.host.endswith(SOCKET):
            return f"unix:{self.host}"
        host = HERE.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def close(self) -> None:
        """Close it, and take its path away."""
        self.socket.close()
        if self.host.endswith(SOCKET):
            with suppress(OSError):
                Path(self.host).unlink()


def bound(hosts: str, port: int) -> list[Listener]:
    """One for each address; all have the same port, of the first's choosing where it is 0.

    The sockets are ours, not waitress's, which starts its threads before it finds a port in use.

    Raises:
        OSError: one cannot be had; the message names it.
    """
    found: list[Listener] = []
    names = split(hosts)
    alone = sum(not name.endswith(SOCKET) for name in names) < 2
    for name in names:
        port = next((each.port for each in found if each.port), port)
        try:
            found.append(Listener(name, _unix(name) if name.endswith(SOCKET) else _tcp(name, port, alone=alone)))
        except OSError as error:
            for each in found:
                each.close()
            place = name if name.endswith(SOCKET) else f"{name}:{port}"
            raise OSError(f"{place}: {error.strerror or error}") from error
    return found


def _tcp(host: str, port: int, *, alone: bool) -> socket.socket:
    flags = socket.AI_PASSIVE
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere this would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not alone:  # :: beside 0.0.0.0
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def _unix(path: str) -> socket.socket:
    """A path that a server left behind which was killed is taken over; one that somebody listens at is not."""
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no Unix sockets")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left_behind(path):
            Path(path).unlink()
        listener.bind(path)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_left_behind(path: str) -> bool:
    try:
        if not S_ISSOCK(Path(path).stat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
