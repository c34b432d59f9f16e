"""A process that may open no more files: who comes waits, a line says why, and no processor is busy with it."""

import os
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from server.net.http import HttpServer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TIMEOUT_S = 20.0


def say_ok(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_no_more_files(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """A connection that finds no room is accepted when there is some; meanwhile one line is written, no traceback."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        HttpServer(say_ok, host="127.0.0.1", port=0, max_streams=2, max_body_bytes=100) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as first,
        socket.socket() as late,
    ):
        late.settimeout(TIMEOUT_S)
        first.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert first.recv(100)
        files = [os.open(os.devnull, os.O_RDONLY)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (files[0] + 1, hard))
        try:
            with suppress(OSError):
                while True:
                    files.append(os.open(os.devnull, os.O_RDONLY))
            late.connect(("127.0.0.1", server.port))
            late.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            cpu = time.process_time()
            time.sleep(1.5)  # tried twice
            cpu = time.process_time() - cpu
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for file in files:
                os.close(file)
        assert late.recv(100).startswith(b"HTTP/1.1 200")
    assert cpu < 0.5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: no connection can be accepted now: Too many open files; ")
    assert not [record for record in caplog.records if record.exc_info]
