"""The last line of defence: a fault in a prediction is told as one, with the key that it was probably about.

Which key that is follows from where it happened: the hyperparameters in the line of code that failed, innermost first.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType

from ggufphys.errors import GGUFError, GGUFPhysError
from ggufphys.gguf import GGUFFile
from ggufphys.loads.refusal import Refusal, refused
from ggufphys.loads.table import EVERY, GLOBAL, Branch, Read, Statement, statements


@contextmanager
def told(gguf: GGUFFile, refusals: Callable[[], Sequence[Refusal]]) -> Iterator[None]:
    """Turn exceptions that nobody raised on purpose into a GGUFError which names a key of the file.

    Where the file has `refusals` and is predicted for all the same (--force), these are why.
    """
    try:
        yield
    except (GGUFPhysError, ValueError, OSError):  # with a message of its own
        raise
    except Exception as error:
        if known := refusals():
            why = "--force does not help, nothing can be predicted for this file, and "
            raise refused(gguf, tuple(known), why) from error
        where = _key_of(gguf, error.__traceback__)
        about = f"probably by {where}" if where else "by its keys or tensors"
        raise GGUFError(
            f"{gguf.location}: no prediction can be made, {about}: {type(error).__name__}: {error}. If llama.cpp loads "
            "the file, this is a fault of ggufphys"
        ) from error


def _key_of(gguf: GGUFFile, traceback: TracebackType | None) -> str:
    """The key of the file that becomes a hyperparameter in the innermost line which has one, and its value."""
    import linecache  # for the one that fails

    keys = _keys(gguf.architecture)
    lines = []
    while traceback is not None:
        lines.append(linecache.getline(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    for line in reversed(lines):
        for name in re.findall(r"\w+", line):
            key = keys.get(name, "")
            if key in gguf.metadata:
                return f"{key} = {gguf.metadata[key]!r}"
    return ""


def _keys(arch: str) -> Mapping[str, str]:
    """The key that each hyperparameter comes from, by its name."""
    return {
        name: f"{arch}.{line.key}"
        for section in (EVERY, arch)
        for line in _reads(statements(section))
        if not line.key.startswith(GLOBAL)  # names, of which nothing is computed
        for name in (line.name, line.name.removesuffix("_full"))
    }


def _reads(lines: tuple[Statement, ...]) -> Iterator[Read]:
    for line in lines:
        if isinstance(line, Read):
            yield line
        elif isinstance(line, Branch):
            yield from _reads((*line.then, *line.otherwise))


__all__ = ["told"]
