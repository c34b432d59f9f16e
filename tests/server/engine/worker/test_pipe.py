"""What passes through the pipe between the engine's process and its parent."""

import io
from collections.abc import Sequence

import pytest

from server.engine.counters import Counters
from server.engine.events import TokenInfo
from server.engine.frames import Began, Ended, Report, Said, Step
from server.engine.worker.pipe import Sender, receive

SAID = Said(7, 1, 42, b" w\xc3", None, False, None)
LAST = Said(2**40, 0, 3, b"", None, True, "stop")
SCORED = SAID._replace(info=TokenInfo(token=42, piece=b"w", logprob=-0.5))


class Kept(io.BytesIO):
    """A pipe's file."""

    def close(self) -> None:
        self.seek(0)


def through(message: object) -> object:
    file = Kept()
    Sender(file).send(message)
    file.seek(0)
    return receive(file)


@pytest.mark.parametrize(
    ("reports", "counters", "is_plain"),
    [
        ([SAID, LAST], None, True),
        ([], None, True),
        ([Began(7, 0, ""), SAID], None, False),
        ([SAID, SCORED], None, False),
        ([SAID, Ended(7, 1, "length")], None, False),
        ([SAID], Counters(n_steps=3), False),
    ],
)
def test_a_step_comes_as_it_was(reports: Sequence[Report], counters: Counters | None, is_plain: bool) -> None:
    """Whether written as plain tuples or pickled, a step is the same behind the pipe, the types of its reports too."""
    step = Step(12.5, list(reports), counters)
    plain = step.plain()
    assert (plain is not None) == is_plain
    if plain is not None:
        found = through(plain)
        assert type(found) is tuple
        step_again = Step.of(found)
    else:
        step_again = through(step)  # type: ignore[assignment]
    assert step_again == step
    assert [type(report) for report in step_again.reports] == [type(report) for report in reports]


@pytest.mark.parametrize("n_missing", [1, 5, 60])
def test_a_message_that_breaks_off(n_missing: int) -> None:
    """A message that ends before its end is an EOFError, in its head or behind it: the other process has died."""
    file = Kept()
    Sender(file).send((1.0, [tuple(SAID)]))
    file.truncate(max(file.tell() - n_missing, 4))
    file.seek(0)
    with pytest.raises(EOFError):
        receive(file)
