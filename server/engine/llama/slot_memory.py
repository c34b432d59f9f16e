"""What a scheduler asks of a context's memory, the model's and a draft's alike: a slot is a sequence there."""

from server.engine.errors import EngineError
from server.engine.llama.handles import Context


class SlotMemory:
    """The memory of one context, slot by slot."""

    _context: Context

    def keep(self, slot: int, n_tokens: int) -> None:
        """Forget all but a slot's first tokens."""
        if not self._context.remove(slot, n_tokens):
            path = self._context.model.path
            raise EngineError(f"llama.cpp could not cut slot {slot} of {path} to {n_tokens} tokens")

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Give an empty slot another one's first tokens."""
        self._context.copy(source, target, n_tokens)

    def resumable(self, slot: int, n_tokens: int) -> bool:
        """Whether a slot of a windowed model can be gone on with behind its first tokens."""
        return self._context.resumable(slot, n_tokens)
