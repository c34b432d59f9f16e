"""What did the engine's process die of, and what would help?"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from ggufphys.machine.children import describe
from server.engine.loop.patience import GAVE_UP

NATIVE: Final = ("SIGSEGV", "SIGILL", "SIGABRT", "SIGFPE")  # where kernels for repacked weights may be at fault


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A model file as it was when it was loaded; None: it could not be looked at."""

    path: str
    stamp: tuple[int, int, int, int] | None

    @classmethod
    def of(cls, path: str) -> Self:
        """The file as it is now."""
        try:
            s = os.stat(path)  # noqa: PTH116  # a path as a user gave it
        except OSError:
            return cls(path, None)
        return cls(path, (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns))

    @property
    def changed_in_place(self) -> bool:
        """Whether the file that was loaded has other contents now: the same inode, another size or time."""
        now = FileStamp.of(self.path).stamp
        return bool(now and self.stamp and now[:2] == self.stamp[:2] and now[2:] != self.stamp[2:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """One death. `native`: as kernels for repacked weights cause it; `suspicious`: that, before any step was done."""

    status: int
    message: str
    native: bool = False
    suspicious: bool = False

    @classmethod
    def of(
        cls, status: int, stamp: FileStamp, *, is_first_load: bool, had_steps: bool, rpc_servers: Sequence[str] = ()
    ) -> Self:
        """What an exit status says, together with what was going on; `rpc_servers` had a part of the model.

        Source: llama.cpp 0c1e570 ggml/src/ggml-rpc/ggml-rpc.cpp, RPC_STATUS_ASSERT: it aborts where one is gone.
        """
        name = describe(status)
        when = "while it loaded the model" if is_first_load else "under way" if had_steps else "in its first step"
        why = ""
        if name == "SIGBUS" or stamp.changed_in_place:
            why = ": a page of the model file could not be read"
            if stamp.changed_in_place:
                why = f": {stamp.path} was overwritten while it was mapped; rename a new file over it instead"
        elif name == "SIGKILL":
            why = ": somebody killed it, or the kernel did for want of memory"
        elif status == GAVE_UP:
            why = ": a request's grammar took too long, which nothing else could end"
        lost = name == "SIGABRT" and bool(rpc_servers)
        if lost:
            why = f": so llama.cpp ends where an RPC server ({', '.join(rpc_servers)}) is gone or of another version"
        native = name in NATIVE and not lost
        return cls(
            status=status,
            message=f"the engine's process died {when} ({name}){why}",
            native=native,
            suspicious=native and not had_steps,
        )


def worth_without_extra_buffers(crashes: Sequence[Crash]) -> bool:
    """Whether to try without repacked weights: a native crash before any step was done, or the second crash on end."""
    return bool(crashes) and (crashes[-1].suspicious or (len(crashes) > 1 and crashes[-1].native))
