"""Where would a program look for its files? The variables, the home folder and the system that decide it."""

import glob
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

from ggufphys.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What the folders of stores depend on: environment variables, the home folder, platform.system(), the root."""

    environment: Mapping[str, str]
    home: Path
    system: str = "Linux"
    root: Path = Path("/")

    def variable(self, name: str) -> Path | None:
        """The folder that a variable names; None where it is unset or empty."""
        value = self.environment.get(name, "").strip("\"' ")
        if value == "~" or value.startswith("~/"):  # as nobody's shell has seen it
            return self.home / value[2:]
        return Path(value) if value else None

    @property
    def cache(self) -> Path:
        """`$XDG_CACHE_HOME`, or ~/.cache."""
        return self.variable("XDG_CACHE_HOME") or self.home / ".cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A model that a program keeps: its name there, the file, and how to name it to us if not by its path."""

    store: str
    name: str
    path: str
    address: str = ""


def here() -> Places:
    """What they are on the machine that this runs on.

    Raises:
        ValueError: there is no home folder.
    """
    try:
        home = Path.home()
    except RuntimeError:
        raise ValueError("no home folder is known, where programs keep their models: set HOME, or name files") from None
    return Places(environment=os.environ, home=home, system=platform.system())


def below(folder: Path, pattern: str) -> list[Path]:
    """What lies there under such names, in order; nothing where a folder may not be read, which `Path.glob` is stopped
    by: other users' stores are no reason not to list one's own.
    """
    names = glob.glob(pattern, root_dir=folder, include_hidden=True)  # noqa: PTH207
    return sorted(folder / name for name in names)


def gguf_files(folder: Path) -> Iterator[Path]:
    """Every *.gguf below a folder that can be read; links to files count, links to folders do not."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if name.lower().endswith(".gguf"))
