"""Who hears what llama.cpp says? It has one logger in a process, which says all to stderr until told otherwise."""

from collections.abc import Callable
from typing import Any, Final

ALL: Final = 0  # of ggml_log_level, from which on
WARN: Final = 3
ERROR: Final = 4

_alive: list[object] = []  # what C calls must outlive the call that handed it over


def hear(api: Any, take: Callable[[str], object], level: int = ERROR) -> None:
    """Hand each piece of the log from `level` on to `take`, for as long as the process lives."""

    def keep(level_of: int, text: bytes, user_data: object) -> None:
        del user_data
        if level_of >= level:
            take(text.decode(errors="replace"))

    callback = api.llama_log_callback(keep)
    _alive.append(callback)
    api.llama_log_set(callback, None)
