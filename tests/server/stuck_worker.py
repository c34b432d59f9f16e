"""The engine's worker with a decode that never returns where it has "0": `python -m tests.server.stuck_worker`."""

import time
from collections.abc import Sequence

from server.engine.backend import Outcome
from server.engine.llama.engine import LlamaBackend
from server.engine.scheduler.sequence import Chunk
from tests.server import lively_worker
from tests.server.chain_model import byte_token

decode = LlamaBackend.decode


def stuck(backend: LlamaBackend, chunks: Sequence[Chunk]) -> Outcome:
    """A decode."""
    while any(byte_token(ord("0")) in chunk.tokens for chunk in chunks):
        time.sleep(1)
    return decode(backend, chunks)


if __name__ == "__main__":
    setattr(LlamaBackend, "decode", stuck)  # noqa: B010 - mypy would not have it assigned
    lively_worker.main()
