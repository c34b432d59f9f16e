"""Answers whose text the worker writes to their clients itself: one process less on a token's way.

What is sent is whole chunks. When the client takes no more, the answer ends, or anything else comes, what was not sent
goes back to the HTTP side, which goes on from there: no byte twice, and none lost.
"""

import socket
import threading
from typing import Final, Protocol

from server.engine.forms import Filling
from server.engine.frames import Broke, Ended, Evaluated, Refused, Report, Said, Step, Wrote
from server.engine.readers.stopping import StopStrings
from server.engine.readers.text import TextStream
from server.engine.ways import Offer, chunk

FLAGS: Final = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)


class Client(Protocol):
    """A client's socket."""

    def send(self, data: bytes, flags: int, /) -> int:
        """Hand over what can be at once; how many bytes. Raises OSError when none."""
        ...

    def close(self) -> None:
        """Let go of it; the HTTP side has it, too."""
        ...


class Lead:
    """An answer on its way to its client."""

    def __init__(self, offer: Offer, client: Client) -> None:
        self._id = offer.id
        self._form, self._chunked, self._is_plain = Filling(offer.form), offer.chunked, offer.form.is_plain
        self._client = client
        self._text = TextStream(StopStrings(offer.stop))
        self._held: list[tuple[int, bytes]] = []  # tokens that are to be shown with the next text
        self._n_tokens = 0  # that have not been reported, when their texts were sent, and these if they are told
        self._times: list[float] = []
        self._said: list[str] = []
        self.unsent = b""

    def say(self, report: Said, at_s: float) -> Said | None:
        """Send a token's text; the token, if it is the HTTP side's: with a stop string, or the last one."""
        if report.reason is not None:
            return report
        text = self._text.feed(report.piece)
        if self._text.stopped:
            return report._replace(piece=(text + self._text.stopped).encode())
        self._n_tokens += 1
        if self._form.shows_tokens:
            self._held.append((report.token, report.piece))
        if text or (self._held and not self._text.n_held):
            self._times.append(at_s)
            data = self._form.next(text, [token for token, _ in self._held])
            self._held.clear()
            if not self._is_plain:
                self._said.append(text)
            self.send(chunk(data) if self._chunked else data)
        return None

    def send(self, data: bytes) -> None:
        """Send bytes; those that are not taken are `unsent`."""
        if self.unsent:
            self.unsent += data
            return
        try:
            n = self._client.send(data, FLAGS)
        except OSError:  # full, or gone: the HTTP side will see which
            n = 0
        self.unsent = data[n:]

    def wrote(self) -> Wrote:
        """What was written since the last time."""
        found = Wrote(self._id, self._n_tokens, tuple(self._times), "".join(self._said), None, tuple(self._held))
        self._n_tokens, self._times, self._said = 0, [], []
        return found

    def give_back(self) -> Wrote:
        """What was written since the last time, and what the HTTP side needs to go on from here."""
        self._client.close()
        rest = b"" if self._text.stopped else self._text.rest
        return self.wrote()._replace(rest=rest, unsent=self.unsent)


class Direct:
    """All answers that are written so. `take` is called by the loop's thread or who ends it, the others by another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_said: dict[int, int] = {}  # tokens that the HTTP side was told, of each request's first answer
        self._leads: dict[int, Lead] = {}

    def accept(self, offer: Offer, client: Client) -> Refused | None:
        """Go on with an answer from here, unless a token has come meanwhile or it is over."""
        with self._lock:
            if self._n_said.get(offer.id) == offer.n_tokens and offer.id not in self._leads:
                self._leads[offer.id] = Lead(offer, client)
                return None
        client.close()
        return Refused(offer.id, offer.n_tokens)

    def send(self, id: int, data: bytes) -> Wrote | None:
        """Send what else the HTTP side has to say; where that is not ours to say, it goes back."""
        with self._lock:
            lead = self._leads.get(id)
            if lead is None:
                return Wrote(id, unsent=data)
            lead.send(data)  # what is not taken goes back with the next token
            return None

    def take(self, step: Step) -> Step | None:
        """Write what can be; what is left to be told, None if nothing is."""
        with self._lock:
            left: list[Report] = []
            for report in step.reports:
                if type(report) is Said:
                    self._say(report, step.at_s, left)
                    continue
                # Behind all of these the HTTP side writes; a prompt is evaluated again behind a preemption.
                if isinstance(report, Broke | Evaluated) or (isinstance(report, Ended) and not report.answer):
                    self._forget(report.id, left)
                left.append(report)
            if step.counters is not None:
                left += (lead.wrote() for lead in self._leads.values())
        return Step(step.at_s, left, step.counters) if left or step.counters is not None else None

    def _say(self, report: Said, at_s: float, left: list[Report]) -> None:
        id = report.id
        lead = self._leads.get(id)
        if lead is not None:
            theirs = lead.say(report, at_s)
            if theirs is None and not lead.unsent:
                return
            self._forget(id, left)
            if theirs is None:
                return
            report = theirs
        left.append(report)
        if not report.answer:
            if report.reason is None:
                self._n_said[id] = self._n_said.get(id, 0) + 1
            else:
                self._n_said.pop(id, None)

    def _forget(self, id: int, left: list[Report]) -> None:
        """It is over, or the HTTP side's again, for good."""
        self._n_said.pop(id, None)
        lead = self._leads.pop(id, None)
        if lead is not None:
            left.append(lead.give_back())
