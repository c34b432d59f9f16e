"""Where the server listens: several addresses, Unix sockets, and none that nobody asked for."""

import http.client
import socket
from pathlib import Path

import pytest

from server.app import create_app
from server.config import ServerConfig
from server.net.addresses import bound, is_local, split
from server.net.http import HttpServer, listening
from tests.server.fake_engine import FakeEngine

UNIX = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
TIMEOUT_S = 20.0


def serve(host: str) -> HttpServer:
    app = create_app(ServerConfig(), FakeEngine())
    return listening(app, host=host, port=0, max_streams=2, max_body_bytes=4096)


class OverUnix(http.client.HTTPConnection):
    """A connection to a path."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self.path)


def status(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/health", headers={"Connection": "close"})
    return connection.getresponse().status


@pytest.mark.parametrize("hosts", ["", " ", ",", " , "])
def test_an_empty_host_is_refused(hosts: str) -> None:
    """An address that an unset variable leaves empty, which would be every interface, opens nothing."""
    with pytest.raises(ValueError, match="it is empty"):
        split(hosts)


def test_local_addresses() -> None:
    """Addresses of this machine alone, and Unix sockets, are told from those that others reach."""
    assert [is_local(each) for each in ("127.0.0.1", "::1", "localhost", "/run/a.sock", "0.0.0.0", "::")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


def test_several_addresses() -> None:
    """Each of several addresses answers, by the same port, also where that was to be any free one."""
    with serve("127.0.0.1, localhost" if not socket.has_ipv6 else "127.0.0.1, ::1") as server:
        first, second = server.urls
        assert first == f"http://127.0.0.1:{server.port}" == server.url
        assert second.endswith(f":{server.port}")
        for url in server.urls:
            host = url.removeprefix("http://").rpartition(":")[0].strip("[]")
            assert status(http.client.HTTPConnection(host, server.port, timeout=TIMEOUT_S)) == 200


@UNIX
def test_a_unix_socket(tmp_path: Path) -> None:
    """A path that ends in .sock is a Unix socket, beside an address or alone; it is gone when the server is."""
    path = tmp_path / "a.sock"
    with serve(f"{path},127.0.0.1") as server:
        assert server.urls == (f"unix:{path}", f"http://127.0.0.1:{server.port}")
        assert status(OverUnix(str(path))) == 200
        assert status(http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)) == 200
        with pytest.raises(ValueError, match=r"cannot listen on .*a\.sock: .*in use"):
            serve(str(path))
        assert status(OverUnix(str(path))) == 200
    assert not path.exists()


@UNIX
def test_a_path_left_behind(tmp_path: Path) -> None:
    """The path of a server that was killed is taken over; a file that is no socket stays as it is, and is told."""
    path, file = tmp_path / "a.sock", tmp_path / "b.sock"
    file.write_text("kept")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
        killed.bind(str(path))
    assert path.exists()

    with serve(str(path)):
        assert status(OverUnix(str(path))) == 200
    with pytest.raises(OSError, match=r"b\.sock: "):
        bound(str(file), 0)
    assert file.read_text() == "kept"
