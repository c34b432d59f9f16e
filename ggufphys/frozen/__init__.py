"""Frozen dataclasses, as the standard library has them but for what they cost where a process ends after an answer.

`dataclasses` writes each method of each class as text, which is compiled when its module is imported: half of the time
in which `inspect` starts, with the modules that it imports itself. Here methods are closures, and `__init__` is written
when many objects were made. For type checkers, `dataclasses.fields` and its like they are dataclasses.

All are frozen; a class that needs more (mutable ones, `ClassVar`, `InitVar`) takes the standard library's.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, fields, replace
else:
    from ggufphys.frozen.classes import dataclass, field
    from ggufphys.frozen.objects import asdict, fields, replace

__all__ = ["asdict", "dataclass", "field", "fields", "replace"]
