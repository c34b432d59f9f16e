"""A server without a model, whose pace is known: what a client of it measures may be compared with the truth.

`python -m bench.paced [--port 8090] [--wait 0.3] [--gap 0.01]` answers OpenAI's chat completions, as many at once as
are asked, each by `max_tokens` tokens: the first `wait` seconds after the request is there, the others `gap` seconds
apart. A word is a token.
"""

import argparse
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from bench.running.program import run_program

MODEL: Final = "paced"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, wait_s: float, gap_s: float) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.wait_s, self.gap_s = wait_s, gap_s


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._whole({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        began = time.perf_counter()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = " ".join(str(message["content"]) for message in body.get("messages", ())) or str(body.get("prompt", ""))
        n = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        usage = {"prompt_tokens": len(said.split()), "completion_tokens": n, "total_tokens": len(said.split()) + n}
        if not body.get("stream"):
            _sleep_until(began + self.server.wait_s + (n - 1) * self.server.gap_s)
            message = {"role": "assistant", "content": " word" * n}
            self._whole({"choices": [{"index": 0, "message": message, "finish_reason": "length"}], "usage": usage})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i in range(n):
            _sleep_until(began + self.server.wait_s + i * self.server.gap_s)
            self._event({"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        self._event({"choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, event: dict[str, Any]) -> None:
        whole = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": MODEL, **event}
        self._chunk(b"data: " + json.dumps(whole).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _whole(self, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.perf_counter()))


@contextmanager
def paced(*, wait_s: float, gap_s: float, port: int = 0) -> Iterator[str]:
    """The address of a server of that pace, in threads of this process; port 0 is any that is free."""
    with _Server(port, wait_s, gap_s) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m bench.paced", description=__doc__)
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--wait", type=float, default=0.3, metavar="S", help="to the first token (0.3)")
    parser.add_argument("--gap", type=float, default=0.01, metavar="S", help="between tokens (0.01)")
    args = parser.parse_args(argv)
    with paced(wait_s=args.wait, gap_s=args.gap, port=args.port) as url:
        print(url, flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


if __name__ == "__main__":
    run_program(main)
