"""The worker's ear: what it does with commands, whenever they come."""

import io
import os
import queue
import threading
from typing import NoReturn

import pytest

from server.engine.frames import Cancel
from server.engine.gathering import Gathering
from server.engine.pipe import Sender
from server.engine.worker import _obey
from server.engine.worker_messages import Call, Close


class Ended(Exception):
    """The process would have ended."""


def test_commands_before_the_loop_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel of a request that failed with the worker before is dropped, and what comes behind it is heard."""

    def end(code: int) -> NoReturn:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    pipe = io.BytesIO()
    sender = Sender(pipe)
    call = Call(1, "text", ((1,),))
    for message in (Cancel(7, 0), call, Close()):
        sender.send(message)
    closing, calls = threading.Event(), queue.SimpleQueue[Call]()
    with pytest.raises(Ended):
        _obey(io.BytesIO(pipe.getvalue()), closing, [], Gathering(), calls)
    assert calls.get_nowait() == call
    assert closing.is_set()
