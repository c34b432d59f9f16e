"""Which part of a growing byte stream may be shown: whole characters only, and nothing that may become a stop string?

Pure functions of what was fed; nothing here knows of llama.cpp.
"""

import codecs
from collections.abc import Sequence

from server.engine.readers.stopping import StopStrings


class TextStream:
    """Token bytes in, presentable text out.

    Bytes of an unfinished character are held back until it is complete; text that could be the start of a stop string
    is held back until it cannot. A stop string is never shown, nor anything behind it: the one that is complete first,
    of several that end there the longest. Bytes that are not UTF-8 become U+FFFD.
    """

    def __init__(self, stop: Sequence[str] | StopStrings = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_whole = True  # no character is unfinished
        self._stop = stop if isinstance(stop, StopStrings) else StopStrings(stop)
        self._looks = bool(self._stop)
        self._state = self._stop.start
        self._held = ""
        self.stopped = ""  # the stop string that came

    def feed(self, piece: bytes) -> str:
        """Take a token's bytes; the text that can be shown now. Sets `stopped` when a stop string is complete."""
        if self.stopped:
            return ""
        if self._is_whole and piece.isascii():  # as most are, and the decoder is Python
            new = piece.decode("ascii")
        else:
            new = self._decoder.decode(piece)
            self._is_whole = not self._decoder.getstate()[0]
        return self._look_through(new) if self._looks else new

    def _look_through(self, new: str) -> str:
        state, stop = self._state, self._stop
        if state is stop.start and stop.firsts.isdisjoint(new):  # as mostly, and a state a character takes its time
            return new
        text = self._held + new
        for at, character in enumerate(new, len(self._held) + 1):
            state = stop.step(state, character)
            n = stop.completed(state)
            if n:
                self.stopped, self._held = text[at - n : at], ""
                return text[: at - n]
        self._state = state
        n_shown = len(text) - state.depth
        self._held = text[n_shown:]
        return text[:n_shown]

    @property
    def n_held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    @property
    def rest(self) -> bytes:
        """What another stream is to be fed to go on from here: text held back, bytes of an unfinished character.

        Nothing more can be shown of it yet, nor has a stop string come: it is the longest end that may become one.
        """
        return self._held.encode() + self._decoder.getstate()[0]

    def finish(self) -> str:
        """The text still held back, at the end of a generation. Bytes of an unfinished character are dropped."""
        held, self._held = self._held, ""
        return held
