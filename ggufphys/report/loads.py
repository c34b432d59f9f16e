"""Would llama.cpp load the file? The verdict in words, and as JSON."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ggufphys.frozen import asdict
from ggufphys.gguf import GGUFFile
from ggufphys.loads import Refusal
from ggufphys.loads.refusal import grouped, headline


def types_line(gguf: GGUFFile) -> str:
    """How many tensors there are of each type."""
    counts = Counter(t.type_name for t in gguf.tensors)
    return f"tensors: {', '.join(f'{n} {name}' for name, n in counts.most_common()) or 'none'}"


def refusal_lines(refusals: Sequence[Refusal]) -> Iterator[str]:
    """All the reasons, each with its source; what is the same in several layers is said once."""
    yield f"{headline(refusals)}:"
    for refusal in grouped(refusals):
        yield f"  {refusal}"
        yield f"    ({refusal.source})"


def loads_json(refusals: Sequence[Refusal], is_unknown: bool = False) -> dict[str, Any]:
    """What stands under `loads` in a document; `is_unknown`: the architecture is one that has no rules here."""
    verdict = "refused" if refusals else "unknown" if is_unknown else "accepted"
    return {"verdict": verdict, "reasons": [asdict(refusal) for refusal in refusals]}


def summary(gguf: GGUFFile, refusals: Sequence[Refusal]) -> str:
    """The verdict in one line, for those who don't read the report."""
    more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    return f"{gguf.location}: {headline(refusals)}: {refusals[0]}{more}"


__all__ = ["loads_json", "refusal_lines", "summary", "types_line"]
