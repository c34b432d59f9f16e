"""Which architectures does llama.cpp know that the pinned one does not? Read off the libraries of recorded builds."""

from typing import Final

from ggufphys.builds.moves import LATEST

# By name: the last record that does not know it, and the first that does.
NEWER: Final[dict[str, tuple[int, int]]] = {
    "clef": (11352, 11391),
    "k2-horizon": (11413, 11548),
    "gemma-embedding2": (11413, 11548),
    "beam": (11548, 11739),
    "kolibri1": (11548, 11739),
    "maion-coder": (11548, 11739),
    "muse-spark": (11548, 11739),
    "vllm-decision2": (11548, 11739),
}


def known_since(arch: str) -> str:
    """Since when llama.cpp knows the name, as the end of a sentence."""
    if arch not in NEWER:
        return f"; no recorded llama.cpp knows the name, up to b{LATEST}"
    before, first = NEWER[arch]
    return f"; llama.cpp knows the name in b{first}, not yet in b{before}"


def may_know(arch: str, build: int) -> bool:
    """Whether llama.cpp of this build knows the name, for all that records say: of newer ones they say nothing."""
    return build > LATEST or (arch in NEWER and build > NEWER[arch][0])
