"""One reason why llama.cpp would not load a file, or would end the process that tries."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One reason: `what` is wrong, `where` in the file, what was `found` there and what is `expected`.

    `where` names a key, a tensor or a part of the file. `ends_process`: there llama.cpp fails an assertion, or divides
    by zero, instead of returning an error.
    """

    what: str
    where: str
    found: str
    expected: str
    source: str  # "llama.cpp 0c1e570 src/llama-model-loader.cpp, get_key"
    ends_process: bool = False

    def __str__(self) -> str:
        ending = "; llama.cpp would end the process" if self.ends_process else ""
        return f"{self.where}: {self.what}: found {self.found}, expected {self.expected}{ending}"


__all__ = ["Refusal"]
