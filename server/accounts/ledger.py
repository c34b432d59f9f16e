"""What does the memory that the server holds consist of? Predicted, by llama.cpp's own account, and as measured.

llama.cpp tells the sizes of its buffers in its log; the kernel tells what is resident, by what backs it. What neither
explains is the rest.
"""

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from ggufphys.logs.lines import MIB, LoggedBuffer, logged_bytes
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.terms import Quantity
from ggufphys.params import HOST
from server.accounts.footprint import http_bytes
from server.accounts.growth import Growth, nothing
from server.engine.counters import Counters

_FIELDS: Final = {
    "RssAnon": "anon_bytes", "RssFile": "file_bytes", "RssShmem": "shared_bytes", "VmSwap": "swap_bytes",
}  # fmt: skip
_QUANTITIES: Final[tuple[Quantity, ...]] = ("model", "context", "compute", "output", "attachment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What was predicted before the load, or why nothing was; `base_bytes` the HTTP side had then."""

    predicted: MemoryPrediction | str = "nothing was predicted"
    base_bytes: int = 0
    pids: "Pids" = field(default_factory=lambda: Pids())
    growth: Growth = nothing

    def document(self, buffers: Sequence[LoggedBuffer], done: Counters, *, n_requests: int = 0) -> dict[str, Any]:
        """All of it, as `GET /v1/memory` has it; `buffers` are those of llama.cpp's log, `done` is what the engine has
        done, `n_requests` how many were under way at a time so far.
        """
        measured = {role: resident(pid) for role, pid in self.pids.all()}
        total = sum(parts.get("anon_bytes", 0) + parts.get("file_bytes", 0) for parts in measured.values())
        predicted = self._predicted()
        expected = self.expected_bytes(len(measured))
        grown = self.growth(done) if expected is not None else 0
        if expected is not None and self.pids.has_worker:
            grown += http_bytes(threading.active_count(), n_requests)
        return {
            "predicted": predicted,
            "llama_cpp": account(buffers),
            "devices": self._devices(buffers),
            "measured": {"processes": measured, "resident_bytes": total},
            "unexplained": None if expected is None else {
                "resident_bytes": total - expected - grown,
                "share": (total - expected - grown) / (expected + grown) if expected else None,
                "grown_bytes": grown,
                "why": "measured, less what is predicted for the engine's process, what more or less than that was "
                "asked of it so far (cells, tokens in a step, samplers and requests at a time), and what the HTTP "
                "side had at start, with the threads that it has now",
            },
        }  # fmt: skip

    def expected_bytes(self, n_processes: int) -> int | None:
        """What should be resident in steady decode: the engine's process, and the HTTP side where that is another.

        One of several models that sleeps has no process.
        """
        if isinstance(self.predicted, str):
            return None
        if not self.pids.has_worker:
            return self.predicted.process_bytes
        return self.base_bytes + (self.predicted.process_bytes if n_processes > 1 else 0)

    def _devices(self, buffers: Sequence[LoggedBuffer]) -> list[dict[str, Any]]:
        """GPUs and RPC workers that hold something: predicted, by llama.cpp's account, and free before the load.

        What lies there is none of this machine's processes', so it is not in what is measured.
        """
        if isinstance(self.predicted, str):
            return []
        return [
            {
                "name": device.name,
                "predicted_bytes": device.total_bytes,
                "llama_cpp_bytes": _on_device(device.name, buffers),
                "free_bytes_before": device.memory_bytes,
            }
            for device in self.predicted.devices
            if device.name != HOST and device.total_bytes
        ]

    def _predicted(self) -> dict[str, Any] | None:
        predicted = self.predicted
        if isinstance(predicted, str):
            return None
        return {
            **{f"{quantity}_bytes": getattr(predicted, f"{quantity}_bytes") for quantity in _QUANTITIES},
            "total_bytes": predicted.total_bytes,
            "process_bytes": predicted.process_bytes,
            "devices": [{"name": d.name, "total_bytes": d.total_bytes} for d in predicted.devices if d.total_bytes],
            "terms": [
                {"quantity": t.quantity, "name": t.name, "bytes": t.nbytes, "device": t.device, "formula": t.formula}
                for t in predicted.terms
            ],
        }


@dataclass(slots=True)
class Pids:
    """The processes that the server is: itself, and the engine's worker, by whoever knows its number now."""

    worker: Any = None  # an engine with a `pid`

    @property
    def has_worker(self) -> bool:
        """Whether the engine is a process of its own, when it is there."""
        return hasattr(self.worker, "pid")

    def all(self) -> Iterable[tuple[str, int]]:
        """Each process's role and number."""
        yield "server", psutil.Process().pid
        pid = getattr(self.worker, "pid", None)
        if pid is not None:
            yield "worker", pid


def _on_device(name: str, buffers: Sequence[LoggedBuffer]) -> int | None:
    """What llama.cpp's log says of a device's buffers; None: it told nothing of any."""
    if not buffers:
        return None
    return round(sum(b.mib for b in buffers if b.buffer == name or b.buffer.startswith(f"{name}_")) * MIB)


def account(buffers: Sequence[LoggedBuffer]) -> dict[str, Any] | None:
    """llama.cpp's own sizes, by quantity; its log has hundredths of MiB. None: it told none."""
    if not buffers:
        return None
    sums = {quantity: logged_bytes(buffers, quantity) for quantity in _QUANTITIES}
    return {
        **{f"{quantity}_bytes": found[0] for quantity, found in sums.items() if found is not None},
        "rounding_bytes": sum(found[1] for found in sums.values() if found is not None),
        "buffers": [{"quantity": b.quantity, "buffer": b.buffer, "what": b.what, "mib": b.mib} for b in buffers],
    }


def resident(pid: int) -> dict[str, int]:
    """What a process holds, by what backs it; elsewhere than on Linux as one figure. Empty: it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        try:
            return {"anon_bytes": int(psutil.Process(pid).memory_info().rss)}
        except psutil.Error:
            return {}
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    return {ours: int(found[theirs]) * 1024 for theirs, ours in _FIELDS.items() if theirs in found}
