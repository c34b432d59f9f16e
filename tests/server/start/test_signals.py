"""The first signal says that it is time to stop, the second means at once."""

import os
import signal
import time

from server.start.signals import Signals
from tests.server.start.serving import POSIX, TIMEOUT_S


@POSIX
def test_signals() -> None:
    """The first signal is noted, the second quits with its number; the handlers of before come back."""
    before = signal.getsignal(signal.SIGTERM)
    quits: list[int] = []
    with Signals(quits.append) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received.wait(TIMEOUT_S)
        assert quits == []
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + TIMEOUT_S
        while not quits:
            assert time.monotonic() < deadline

    assert quits == [130]
    assert signal.getsignal(signal.SIGTERM) is before
