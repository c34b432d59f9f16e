"""Where is this machine's calibration kept? `$XDG_CACHE_HOME/ggufphys/speed`, or the same below `~/.cache`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ggufphys.speed.rates import Machine

NAME: Final = "calibration.json"


def folder() -> Path | None:
    """The folder; None where nobody is at home."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "ggufphys" / "speed"
    except RuntimeError:
        return None


def calibration_path() -> Path | None:
    """The file, whether it is there or not."""
    place = folder()
    return None if place is None else place / NAME


def kept_machine() -> "Machine | None":
    """The machine that was calibrated here; None when none was.

    Raises:
        CalibrationError: what is kept cannot be used.
    """
    path = calibration_path()
    if path is None or not path.is_file():
        return None
    from ggufphys.speed.rates import read_machine  # only when there is something to read

    return read_machine(path)


def keep(text: str, name: str = NAME) -> Path | None:
    """Write a file there, whole or not at all; None where there is no place for it."""
    place = folder()
    if place is None:
        return None
    place.mkdir(parents=True, exist_ok=True)
    path, draft = place / name, place / f"{name}.{os.getpid()}"
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return path
