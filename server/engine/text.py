"""Which part of a growing byte stream may be shown: whole characters only, and nothing that may become a stop string?

Pure functions of what was fed; nothing here knows of llama.cpp.
"""

import codecs
from collections.abc import Sequence


class TextStream:
    """Token bytes in, presentable text out.

    Bytes of an unfinished character are held back until it is complete; text that could be the start of a stop string
    is held back until it cannot. A stop string is never shown, nor anything behind it. Bytes that are not UTF-8 become
    U+FFFD.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes) -> str:
        """Take a token's bytes; the text that can be shown now. Sets `stopped` when a stop string is complete."""
        if self.stopped:
            return ""
        text = self._held + self._decoder.decode(piece)
        found = min((at for at in (text.find(stop) for stop in self._stop) if at >= 0), default=-1)
        if found >= 0:
            self.stopped = True
            self._held = ""
            return text[:found]
        n_held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def finish(self) -> str:
        """The text still held back, at the end of a generation. Bytes of an unfinished character are dropped."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper prefix of `stop` that `text` ends with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
