"""How much memory does the server take meanwhile? Its process and what it started, looked at now and then."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import psutil

PERIOD_S: Final = 0.2


@dataclass(slots=True)
class Watch:
    """Resident bytes of a process and its children; `most` since `reset`."""

    pid: int
    most: int = 0
    _task: "asyncio.Task[None] | None" = field(default=None, repr=False)

    def look(self) -> int:
        """Now.

        Raises:
            ValueError: there is no such process.
        """
        try:
            process = psutil.Process(self.pid)
            found = sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
        except psutil.Error as error:
            raise ValueError(f"--pid {self.pid}: {error}") from error
        self.most = max(self.most, found)
        return int(found)

    def reset(self) -> None:
        """Forget the most."""
        self.most = 0

    async def run(self) -> None:
        """Look until cancelled, or until the process is gone."""
        while True:
            try:
                self.look()
            except ValueError:
                return
            await asyncio.sleep(PERIOD_S)
