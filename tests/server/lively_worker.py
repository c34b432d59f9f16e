"""The engine's worker with twenty signs of life where it has one: `python -m tests.server.lively_worker`."""

from server.engine.loop.vitality import BEAT_S
from server.engine.worker import process as worker


def main() -> None:
    """Run it."""
    setattr(worker, "BEAT_S", BEAT_S / 20)  # noqa: B010 - mypy would not have it assigned
    worker.main()


if __name__ == "__main__":
    main()
