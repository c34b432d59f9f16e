"""The process that llama.cpp runs in: `python -m server.engine.worker.process`, started by `SupervisedEngine`.

Messages come on stdin and go to what was stdout; whatever else writes to stdout goes to stderr. It ends when told to,
or when its parent is gone. Signals are the parent's business.
"""

import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NoReturn

from server.engine.backend import Backend
from server.engine.frames import Broke, Refused, Step, Wrote
from server.engine.llama import huge_pages
from server.engine.llama.engine import load_backend
from server.engine.llama.log import LOG
from server.engine.loop.loop import EngineLoop
from server.engine.loop.patience import GAVE_UP, TOO_LONG
from server.engine.loop.threaded import tokenize
from server.engine.loop.vitality import BEAT_S
from server.engine.readers.gathering import Gathering
from server.engine.ways import Aside, Passage
from server.engine.worker.direct import Direct
from server.engine.worker.heap import Heap
from server.engine.worker.messages import Alive, Answered, Call, Close, Ending, Loaded, NotLoaded, Start, Warned
from server.engine.worker.pipe import Sender, receive
from server.engine.worker.rpc_links import LOST, lost


class _ToParent(Sender):
    """To whom the process belongs: when nobody is there any more, it ends, whichever thread finds that out first."""

    def send(self, message: object) -> None:
        """Write a message, whole."""
        try:
            super().send(message)
        except BrokenPipeError:
            os._exit(0)


def main() -> NoReturn:
    """Load what the first message says, run its loop until told to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a Ctrl-C is for all processes of the terminal
    sender = _ToParent(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    stdin: BinaryIO = sys.stdin.buffer
    start = receive(stdin)
    assert isinstance(start, Start)
    LOG.verbose = start.verbose
    closing = threading.Event()
    loops: list[EngineLoop] = []
    calls: dict[str, queue.SimpleQueue[Call]] = {each: queue.SimpleQueue() for each in ("words", "images")}
    gathering, direct, heap = Gathering(), Direct(), Heap()
    threading.Thread(
        target=_obey, args=(stdin, closing, loops, gathering, calls), name="commands", daemon=True
    ).start()  # fmt: skip

    threading.Thread(target=_beat, args=(loops, sender, heap, start.rpc_servers), name="beats", daemon=True).start()

    def warn(message: str) -> None:
        sender.send(Warned(message))

    try:
        backend = load_backend(
            start.path, start.params, name=start.name, warn=warn, unwanted=closing.is_set, adapters=start.adapters,
            guessing=start.guessing, target_s=start.target_s, block=start.block,
            encoder=start.encoder,
        )  # fmt: skip
    except Exception as error:  # whatever it is, the parent must learn of it
        sender.send(NotLoaded(_portable(error)))
        sender.close()
        os._exit(1)  # Python's own end would complain of the thread that waits for commands

    def deliver(step: Step) -> None:
        left = gathering.take(step)
        if left is not None and (left := direct.take(left)) is not None:
            sender.send(left.plain() or left)
            heap.note(left)

    loop = EngineLoop(backend, deliver, target_s=start.target_s, warn=warn)

    def give_up(id: int) -> None:
        deliver(Step(time.perf_counter(), [Broke(id, TOO_LONG, "request")], None))  # nothing is sent behind it
        sender.close()
        os._exit(GAVE_UP)

    loop.watch(give_up)
    loops.append(loop)
    for name, asked in calls.items():
        threading.Thread(target=_answer, args=(asked, backend, sender), name=name, daemon=True).start()
    if start.passage >= 0:
        passage = Passage(socket.socket(fileno=start.passage))
        threading.Thread(target=_go, args=(passage, direct, sender), name="ways", daemon=True).start()
    sender.send(Loaded(backend.info, backend.buffers))
    threading.Thread(target=huge_pages.gather, name="huge pages", daemon=True).start()
    if not closing.is_set():
        loop.run()
    sender.close()
    os._exit(0)  # the system frees a process faster than llama.cpp does, and threads may still be in its tokenizer


def _beat(loops: list[EngineLoop], sender: Sender, heap: Heap, rpc_servers: Sequence[str]) -> None:
    """Say now and then that all is well, and how far the loop is; end where a part of the model is gone."""
    while True:
        time.sleep(BEAT_S)
        heap.tidy()
        gone = lost(rpc_servers) if loops else ""
        try:
            if gone:
                sender.send(Ending(f"the RPC server {gone} has hung up"))
                sender.close()
                os._exit(LOST)
            sender.send(Alive(loops[0].sign if loops else None))
        except (OSError, ValueError):  # the parent or the pipe is gone
            return


def _obey(
    stdin: BinaryIO, closing: threading.Event, loops: list[EngineLoop], gathering: Gathering,
    calls: "Mapping[str, queue.SimpleQueue[Call]]",
) -> None:  # fmt: skip
    """Hand on what comes; images, which take long, beside words. New requests come only once the loop is there."""
    while True:
        try:
            message = receive(stdin)
        except EOFError:
            os._exit(0)  # the parent is gone, and nobody waits for anything
        match message:
            case Call():
                calls["images" if message.method == "read" else "words"].put(message)
            case Close():
                closing.set()
                for loop in loops:
                    loop.close()
            case _:
                for loop in loops:  # none yet: for a request of the worker before this one, which failed with that
                    gathering.expect(message)
                    loop.put(message)


def _go(passage: Passage, direct: Direct, sender: Sender) -> None:
    """Take the ways to clients that are offered."""
    while True:
        try:
            message, fileno = passage.receive()
        except (EOFError, OSError):
            return
        back: Wrote | Refused | None
        if isinstance(message, Aside):
            back = direct.send(message.id, message.data)
        else:
            try:
                back = direct.accept(message, socket.socket(fileno=fileno))
            except (OSError, ValueError):  # too many are open here
                back = Refused(message.id, message.n_tokens)
        if back is not None:
            sender.send(Step(time.perf_counter(), [back], None))


def _answer(calls: "queue.SimpleQueue[Call]", backend: Backend, sender: Sender) -> None:
    """Answer calls, one after the other."""
    while True:
        call = calls.get()
        try:
            sender.send(Answered(call.id, _call(backend, call), None))
        except Exception as error:
            sender.send(Answered(call.id, None, _portable(error)))


def _call(backend: Backend, call: Call) -> Any:
    words = backend.words
    match call.method:
        case "read":
            return backend.read(*call.arguments)
        case "tokenize":
            text, add_special, parse_special = call.arguments
            return tokenize(words, text, add_special=add_special, parse_special=parse_special)
        case "text":
            return words.text(*call.arguments)
        case "pieces":
            return tuple(words.piece(token, special=True) for token in call.arguments[0])


def _portable(error: Exception) -> Exception:
    """The error as one that can be pickled: with its arguments alone, or another of its kind."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


if __name__ == "__main__":
    main()
