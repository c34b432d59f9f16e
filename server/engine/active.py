"""One generation while it runs: what it has been given, what it has shown, and when it is over.

Knows nothing of batches or memory, so that a scheduler can advance many of them side by side.
"""

import time

from server.engine.protocol import Failed, Finished, FinishReason, Generation, Piece, Started, Timings, Usage
from server.engine.runner import Chooser, Words
from server.engine.text import TextStream


class ActiveGeneration:
    """A generation from its first decode to its last event. Close it when it is over."""

    def __init__(self, generation: Generation, chooser: Chooser, words: Words, *, n_cached: int) -> None:
        self.generation = generation
        self.request = generation.request
        self.chooser = chooser
        self._words = words
        self._text = TextStream(self.request.stop)
        self._n_cached = n_cached
        self._n_generated = 0
        self.started_at = time.perf_counter()
        self._first_token_at: float | None = None
        chooser.remember(self.request.prompt)
        generation.publish(Started())

    def accept(self, token: int) -> FinishReason | None:
        """Take the token just sampled, show what can be shown; the reason to end here, if there is one."""
        if self._first_token_at is None:
            self._first_token_at = time.perf_counter()
        self._n_generated += 1
        if self._words.ends_generation(token):
            return "stop"
        self._show(self._text.feed(self._words.piece(token)))
        if self._text.stopped:
            return "stop"
        if self.request.max_tokens is not None and self._n_generated >= self.request.max_tokens:
            return "length"
        return None

    def finish(self, reason: FinishReason) -> None:
        """Show what was held back and publish the last event."""
        now = time.perf_counter()
        first = self._first_token_at or now
        if not self._text.stopped:
            self._show(self._text.finish())
        self.generation.publish(
            Finished(
                reason=reason,
                usage=Usage(n_prompt=len(self.request.prompt), n_cached=self._n_cached, n_generated=self._n_generated),
                timings=Timings(
                    queue_s=self.started_at - self.generation.submitted_at,
                    prompt_s=first - self.started_at,
                    decode_s=now - first,
                ),
            )
        )

    def fail(self, message: str) -> None:
        """Publish that the engine could not go on."""
        self.generation.publish(Failed(message=message))

    def _show(self, text: str) -> None:
        if text:
            self.generation.publish(Piece(text=text))
