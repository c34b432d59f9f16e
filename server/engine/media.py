"""Images and sounds in a prompt: the tokens that stand for them, and the files that they are made of.

A prompt is a row of tokens, and so it stays: where an image is, placeholders stand, negative numbers that follow from
its bytes. So prompts that begin alike are found as those of text are, and no token of a vocabulary is one of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import shake_256
from itertools import accumulate
from struct import unpack
from typing import Final

BLIND: Final = "this server was started without an encoder of images and sounds (--mmproj)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """The file that makes embeddings of images or sounds (mmproj), and how it is run; 0: as the file says."""

    path: str
    offload: bool = True
    image_min_tokens: int = 0
    image_max_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Placeholders in a prompt, evaluated together: `n_tokens` from `start` on, `n_pos` positions.

    They are what an encoder makes of `file`: the `part`-th of its pieces, since a large image may be cut.
    """

    start: int
    n_tokens: int
    n_pos: int
    file: bytes
    part: int = 0

    @property
    def end(self) -> int:
        """The place behind them."""
        return self.start + self.n_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Tokens, and where among them images and sounds are, in their order."""

    tokens: tuple[int, ...]
    spans: tuple[Span, ...] = ()


def placeholders(file: bytes, part: int, n_tokens: int) -> tuple[int, ...]:
    """The tokens that stand for a part of a file: 31 bits of its hash in each, so that others are others."""
    bits = shake_256(part.to_bytes(4, "little") + file).digest(4 * n_tokens)
    return tuple(-1 - (word >> 1) for word in unpack(f"<{n_tokens}I", bits))


def joined(pieces: Sequence[Read]) -> Read:
    """Pieces of a prompt, one behind the other."""
    starts = accumulate((len(piece.tokens) for piece in pieces), initial=0)
    return Read(
        tokens=tuple(token for piece in pieces for token in piece.tokens),
        spans=tuple(
            replace(span, start=start + span.start)
            for start, piece in zip(starts, pieces, strict=False)
            for span in piece.spans
        ),
    )


def whole(spans: Iterable[Span], n: int) -> int:
    """How many of the first `n` tokens there are without a part of a span: it is never divided."""
    return next((span.start for span in spans if span.start < n < span.end), n)
