"""The engine's worker with a model that takes its time, as real ones do: `python -m tests.server.slow_worker`."""

import time
from collections.abc import Sequence

from server.engine.backend import Outcome
from server.engine.llama.engine import LlamaBackend
from server.engine.scheduler.sequence import Chunk
from server.engine.worker import process as worker

STEP_S = 0.003


decode = LlamaBackend.decode


def slowly(backend: LlamaBackend, chunks: Sequence[Chunk]) -> Outcome:
    """A decode."""
    time.sleep(STEP_S)
    return decode(backend, chunks)


if __name__ == "__main__":
    setattr(LlamaBackend, "decode", slowly)  # noqa: B010 - mypy would not have it assigned
    worker.main()
