"""A progress bar over the child's events, on stderr; silent where nobody watches."""

from types import TracebackType
from typing import Any, Final, Self

from tqdm import tqdm

_NEXT: Final = {
    "interpreter": "loading the library",
    "library": "loading the weights",
    "weights": "creating the context",
    "context": "prefill",
    "prefill": "decode",
    "decode": "done",
}
_SHARE: Final = {"interpreter": 2, "library": 5, "weights": 40, "context": 45, "prefill": 75, "decode": 100}


class Progress:
    """Call it with each event."""

    def __init__(self, *, enabled: bool) -> None:
        self.bar = tqdm(total=100, disable=not enabled, leave=False, bar_format="{desc:24} {bar} {elapsed}")

    def __call__(self, event: dict[str, Any]) -> None:
        """Move on to where the event says the child is."""
        if "phase" in event:
            self.bar.set_description_str(_NEXT[event["phase"]])
            self.move_to(_SHARE[event["phase"]])
        elif "progress" in event:
            self.move_to(5 + 35 * event["progress"])

    def move_to(self, percent: float) -> None:
        """Advance, never backwards: a second attempt starts over without moving the bar."""
        self.bar.update(max(0.0, percent - self.bar.n))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.close()
