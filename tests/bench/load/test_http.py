"""The client's own HTTP: whatever way an answer ends or breaks, it is told apart, and connections are used again."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import pytest

from bench.load.client import Answer, Client
from bench.load.prompts import Request

EVENT: Final = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
END: Final = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
LAST: Final = (
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
)
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
OLD: Final = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """As a chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


WHOLE: Final = CHUNKED + chunk(EVENT) + chunk(EVENT + END) + chunk(b"")


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """Read one request; empty when the client has closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    n_bytes = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(n_bytes)


def sent(
    writes: Sequence[bytes], *, n: int = 1, closes: bool = False, timeout_s: float = 5.0
) -> tuple[list[Answer], int]:
    """Answers of n requests, one after the other, by a server that writes so; and how many connections it saw."""
    connections = 0
    talks: set[asyncio.Task[None] | None] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        talks.add(asyncio.current_task())
        with suppress(ConnectionError):
            while await request_of(reader):
                for data in writes:
                    writer.write(data)
                    await writer.drain()
                    await asyncio.sleep(0.001)
                if closes:
                    break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def main() -> list[Answer]:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Client(
            f"http://127.0.0.1:{port}/v1",
            model="m",
            endpoint="chat/completions",
            extra={},
            api_key="",
            timeout_s=timeout_s,
        )
        answers = [await client.send(Request("a b", 2, 2)) for _ in range(n)]
        await client.close()
        await asyncio.wait([talk for talk in talks if talk is not None], timeout=5)
        server.close()
        return answers

    return asyncio.run(main()), connections


@pytest.mark.parametrize(
    "writes",
    [
        [WHOLE],
        [WHOLE[i : i + 7] for i in range(0, len(WHOLE), 7)],
        [OK + b"Content-Length: %d\r\n\r\n" % len(EVENT * 2 + END), EVENT * 2, END],
        [OK + b"Connection: close\r\n\r\n", EVENT, EVENT, END],
        [OLD, EVENT, EVENT, END],
        [b"HTTP/1.1 100 Continue\r\n\r\n", WHOLE],
    ],
    ids=["at once", "cut anywhere", "with a length", "until it closes", "HTTP/1.0", "announced"],
)
def test_whole_answers(writes: list[bytes]) -> None:
    """An answer is whole however its bytes are cut and its end is told."""
    (answer,), _ = sent(writes, closes=writes[0] == OLD or b"Connection: close" in writes[0])

    assert (answer.error, answer.n_predict, answer.n_prompt, len(answer.pieces)) == ("", 2, 3, 2)
    assert answer.sent_s < answer.pieces[0] <= answer.pieces[1] <= answer.done_s


@pytest.mark.parametrize(
    ("writes", "error"),
    [
        ([CHUNKED + chunk(EVENT)], "truncated"),
        ([CHUNKED + chunk(EVENT) + chunk(b"")], "truncated"),
        ([OK + b"Content-Length: 999\r\n\r\n" + EVENT], "truncated"),
        ([CHUNKED + chunk(EVENT + b'data: {"choices":[{"delta":{"content":"cut') + chunk(b"")], "truncated"),
        ([b"SSH-2.0-nothing\r\n"], "malformed"),
        ([], "truncated"),
        ([OK + b"Content-Length: 0\r\n\r\n"], "not streamed"),
        ([OK + b'Content-Length: 42\r\n\r\n{"choices":[{"message":{"content":"a b"}}]}'], "not streamed"),
        ([CHUNKED + chunk(b'data: {"choices":[null]}\n\n' + END) + chunk(b"")], "malformed"),
        ([CHUNKED + chunk(b'data: {"choices":[{"delta":"a"}]}\n\n' + END) + chunk(b"")], "malformed"),
        ([CHUNKED + chunk(b"data: {broken\n\n" + END) + chunk(b"")], "malformed"),
        ([CHUNKED + chunk(b'data: {"error": {"message": "no room"}}\n\n') + chunk(b"")], "refused"),
        ([CHUNKED + chunk(b'error: {"message": "no room"}\n\n') + chunk(b"")], "refused"),
        ([b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"], "http 404"),
    ],
    ids=[
        "lost",
        "ends unsaid",
        "short",
        "cut in a line",
        "no HTTP",
        "closed",
        "empty",
        "a document",
        "no choice",
        "no delta",
        "no JSON",
        "error",
        "an error's own line",
        "status",
    ],
)
def test_broken_answers(writes: list[bytes], error: str) -> None:
    """What is wrong with an answer has one name, and the next request is not harmed by it."""
    answers, _ = sent(writes, n=2, closes=True)

    assert [answer.error for answer in answers] == [error, error]


@pytest.mark.parametrize(
    ("events", "n_pieces", "counted"),
    [
        (EVENT * 2 + END, 2, (3, 2)),
        ((EVENT * 2 + END).replace(b"data: ", b"data:"), 2, (3, 2)),
        ((EVENT * 2 + END).replace(b"\n", b"\r\n"), 2, (3, 2)),
        (b": ping\n\n" + EVENT + b"event: message\nid: 7\n" + EVENT + END, 2, (3, 2)),
        (EVENT * 2 + END.rstrip(), 2, (3, 2)),
        (EVENT + LAST.rstrip(), 2, (3, 2)),
        (EVENT.replace(b'"a"', b'""') + EVENT.replace(b'"a"', b"null") + EVENT + END, 1, (3, 2)),
        (EVENT.replace(b"content", b"reasoning_content") + EVENT + END, 2, (3, 2)),
        (EVENT.replace(b'{"choices"', b'{"error":null,"usage":null,"choices"') * 2 + END, 2, (3, 2)),
        (EVENT + END.replace(b'"completion_tokens":2', b'"completion_tokens":0'), 1, (3, None)),
        (EVENT + END.replace(b":3,", b':"3",').replace(b":2}", b":-2}"), 1, (None, None)),
        (EVENT + b'data: {"choices":[],"usage":[1]}\n\ndata: [DONE]\n\n', 1, (None, None)),
        (b"data: [DONE]\n\n", 0, (None, None)),
    ],
    ids=[
        "as most do", "no blank", "CRLF", "comments and names", "no last line end", "all in the last line", "empty",
        "thinking", "nothing said of errors", "nothing counted", "no numbers", "usage of another form", "no content",
    ],
)  # fmt: skip
def test_ways_to_say_it(events: bytes, n_pieces: int, counted: tuple[int | None, int | None]) -> None:
    """However servers write their events, pieces of content are seen, and counts that are none are not believed."""
    (answer,), _ = sent([CHUNKED + chunk(events) + chunk(b"")])

    assert (answer.error, len(answer.pieces), (answer.n_prompt, answer.n_predict)) == ("", n_pieces, counted)


def test_an_answer_that_was_said_to_be_done() -> None:
    """A connection that is lost behind [DONE] loses nothing."""
    (answer,), _ = sent([CHUNKED + chunk(EVENT + END)], closes=True)

    assert (answer.error, answer.n_predict) == ("", 2)


def test_where_a_server_points_to() -> None:
    """A redirect is not followed, since what it costs would be measured; where it points to is told."""
    moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: https://other/v1\r\nContent-Length: 0\r\n\r\n"
    (answer,), _ = sent([moved])

    assert (answer.error, answer.detail) == ("http 307", "it points to https://other/v1")


def test_connections_are_used_again() -> None:
    """Answers that end by themselves leave the connection for the next request; a lost idle one is made anew."""
    answers, n_connections = sent([WHOLE], n=4)
    assert [answer.error for answer in answers] == [""] * 4
    assert n_connections == 1

    answers, n_connections = sent([WHOLE], n=3, closes=True)  # without saying so
    assert [answer.error for answer in answers] == [""] * 3
    assert n_connections == 3


def test_a_server_that_says_nothing() -> None:
    """An answer that does not come in time is a time-out, and its connection is not used again."""
    (first, second), n_connections = sent([CHUNKED + chunk(EVENT)], n=2, timeout_s=0.1)

    assert (first.error, second.error) == ("timeout", "timeout")
    assert n_connections == 2
