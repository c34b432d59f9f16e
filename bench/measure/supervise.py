"""Running the measured child: events in, memory samples taken, and a death by signal turned into a result.

Whatever happens in the child, a crash of llama.cpp included, this process lives on.
"""

import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.measure.sample import MemorySample, sample
from ggufphys.errors import GGUFError
from ggufphys.gguf.lengths import cut_short
from ggufphys.machine.children import describe, died, environment, module_command

PHASES: Final = ("interpreter", "library", "weights", "context", "prefill", "decode")

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A phase that was reached: memory at its end, and what the child said of it."""

    name: str
    memory: MemorySample
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildResult:
    """How a run of the child ended. `exit` is 0, an exit code, or a signal's name; `failed_in` the phase it died in."""

    exit: int | str
    phases: tuple[Phase, ...]
    error: dict[str, Any] | None
    stderr: str

    @property
    def ok(self) -> bool:
        """Did it run to its end?"""
        return self.exit == 0

    @property
    def failed_in(self) -> str | None:
        """The phase that was being run when it ended early."""
        return None if self.ok else PHASES[min(len(self.phases), len(PHASES) - 1)]

    def phase(self, name: str) -> Phase | None:
        """The phase of that name, when it was reached."""
        return next((phase for phase in self.phases if phase.name == name), None)


def child_command(config: dict[str, Any]) -> list[str]:
    """The command line of the measured child."""
    return module_command("bench.measure.child", json.dumps(config))


def run_child(command: Sequence[str], on_event: OnEvent) -> ChildResult:
    """Run the child to its end, sampling its memory after each phase; `on_event` sees every event.

    An interrupt (Ctrl-C) ends the child before it is passed on.

    Raises:
        GGUFError: it failed, and a model file was cut short meanwhile whose length is kept (`ggufphys.gguf.lengths`).
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=environment(spinning=True),
        start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the child
    ) as child:
        stderr: list[str] = []
        assert child.stderr is not None
        drain = threading.Thread(target=lambda: stderr.extend(child.stderr or ()), daemon=True)
        drain.start()
        try:
            phases, error = _follow(child, on_event)
            code = child.wait()
        except BaseException:
            child.kill()
            raise
        drain.join(timeout=5)
    if code and (cut := cut_short()):
        raise GGUFError(cut)
    return ChildResult(
        exit=describe(code) if died(code) else code, phases=tuple(phases), error=error, stderr="".join(stderr)[-4000:]
    )


def _follow(child: "subprocess.Popen[str]", on_event: OnEvent) -> tuple[list[Phase], dict[str, Any] | None]:
    import psutil  # of an extra, which help for a command does not need

    assert child.stdin is not None
    assert child.stdout is not None
    process = psutil.Process(child.pid)
    phases: list[Phase] = []
    error = None
    for line in child.stdout:
        event = _decode(line)
        if "phase" in event:
            try:
                phases.append(Phase(name=event["phase"], memory=sample(process), facts=event))
                child.stdin.write("\n")
                child.stdin.flush()
            except (psutil.Error, BrokenPipeError):  # killed at this very moment: its exit status says by what
                break
        elif "error" in event:
            error = event
        on_event(event)
    return phases, error


def _decode(line: str) -> dict[str, Any]:
    """An event; anything else on the child's stdout (a library that prints) is passed on as text."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"text": line}
