"""At which position is a token? Images may have more tokens than positions, and what stands behind them moves.

With M-RoPE an image's tokens lie in a plane, which takes as many positions as its longer side.

Source: llama.cpp 0c1e570 tools/mtmd/mtmd.h, mtmd_input_chunk_get_n_pos; tools/server/server-common.cpp,
server_tokens::pos_next.
"""

from server.engine.media import Span


class Positions:
    """The images in each slot's memory, whose tokens are not as many as their positions."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[Span, ...]] = {}  # slots that have none are not here

    def __call__(self, slot: int, n_tokens: int) -> int:
        """The position behind a slot's first tokens."""
        if slot not in self._of:
            return n_tokens
        return n_tokens + sum(s.n_pos - s.n_tokens for s in self._of[slot] if s.end <= n_tokens)

    def add(self, slot: int, span: Span) -> None:
        """An image has been evaluated."""
        if span.n_pos != span.n_tokens:
            self._of[slot] = (*self._of.get(slot, ()), span)

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Another slot, which is empty, has a slot's first tokens now."""
        if source in self._of:
            self._of[target] = self._of[source]
            self.cut(target, n_tokens)

    def cut(self, slot: int, n_tokens: int) -> None:
        """All but a slot's first tokens are forgotten."""
        if slot in self._of:
            left = tuple(s for s in self._of.pop(slot) if s.end <= n_tokens)
            if left:
                self._of[slot] = left
