"""The worker's ear: what it does with commands, whenever they come."""

import io
import os
import queue
import subprocess
import threading
from pathlib import Path
from subprocess import PIPE
from typing import BinaryIO, NoReturn, cast

import pytest

from ggufphys.machine.children import environment, module_command
from ggufphys.params import Params
from server.engine.frames import Cancel
from server.engine.readers.gathering import Gathering
from server.engine.worker.messages import Call, Close, Loaded, Start
from server.engine.worker.pipe import Sender, receive
from server.engine.worker.process import _obey


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
    for message in (Cancel(7, 0), call, Call(2, "read", (b"",)), Close()):
        sender.send(message)
    closing, calls = threading.Event(), {"words": queue.SimpleQueue[Call](), "images": queue.SimpleQueue[Call]()}
    with pytest.raises(Ended):
        _obey(io.BytesIO(pipe.getvalue()), closing, [], Gathering(), calls)
    assert calls["words"].get_nowait() == call
    assert calls["images"].get_nowait().id == 2  # which may take long, and holds no words up
    assert calls["words"].empty()
    assert closing.is_set()


@pytest.mark.skipif(os.name != "posix", reason="pipes that break are POSIX's")
def test_nobody_listens_any_more(chain_path: Path) -> None:
    """A parent that was killed is noticed by who speaks to it, too: the worker ends, and says nothing of it."""
    with subprocess.Popen(
        module_command("server.engine.worker.process"), env=environment(), stdin=PIPE, stdout=PIPE, stderr=PIPE
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stderr is not None
        sender = Sender(cast(BinaryIO, worker.stdin))
        sender.send(Start(str(chain_path), Params(n_ctx=512, n_threads=1), "", 0.2, verbose=False))
        while not isinstance(receive(cast(BinaryIO, worker.stdout)), Loaded):
            pass
        worker.stdout.close()
        sender.send(Call(1, "text", ((1,),)))
        try:
            code = worker.wait(10)
        finally:
            worker.kill()
        assert (code, worker.stderr.read()) == (0, b"")
