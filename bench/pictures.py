"""How does a stranger's name stand in a picture?"""

from typing import Final

from ggufphys.units import in_a_line

LONGEST: Final = 56  # letters


def elided(name: str) -> str:
    """A name as pictures have room for it, and as it is: dollars are no formula, and `_` in front does not hide it."""
    name = in_a_line(name)
    name = name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-(LONGEST // 2) :]}"
    return (f" {name}" if name.startswith("_") else name).replace("$", r"\$")
