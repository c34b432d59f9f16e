"""How much memory does the server take meanwhile? Its process and what it started, looked at now and then."""

import asyncio
from dataclasses import dataclass
from typing import Final

import psutil

PERIOD_S: Final = 0.2


@dataclass(slots=True)
class Watch:
    """Resident bytes of a process and its children; `most` since `reset`."""

    pid: int
    most: int = 0

    def look(self) -> int:
        """The bytes that the processes hold now.

        Raises:
            ValueError: there is no such process.
        """
        try:
            process = psutil.Process(self.pid)
            found = process.memory_info().rss + sum(map(_resident_bytes, process.children(recursive=True)))
        except psutil.Error as error:
            raise ValueError(f"--pid {self.pid}: {error}") from error
        self.most = max(self.most, found)
        return int(found)

    def last_look(self) -> int | None:
        """Now; None where the process has ended meanwhile."""
        try:
            return self.look()
        except ValueError:
            return None

    def reset(self) -> None:
        """Begin to look for the most anew."""
        self.most = 0

    async def run(self) -> None:
        """Look until cancelled, or until the process is gone."""
        while True:
            if self.last_look() is None:
                return
            await asyncio.sleep(PERIOD_S)


def _resident_bytes(child: psutil.Process) -> int:
    """Of a process that may just have ended."""
    try:
        return int(child.memory_info().rss)
    except psutil.Error:
        return 0
