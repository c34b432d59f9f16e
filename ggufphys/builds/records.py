"""Which builds of llama.cpp were recorded, and what moved between them? Written by `python -m scripts.list_builds`.

RECORDED: builds whose bytes for all small models of the project were recorded, and their commits.
MOVED: architectures whose bytes differ between a record and the one before it.
UNEXPLAINED: architectures for which some predicted row differs from the record.
SINCE: the first record that knows an architecture, of those that the first record does not know.
"""

from collections.abc import Mapping
from typing import Final

RECORDED: Final[Mapping[int, str]] = {11312: "0c1e570"}
MOVED: Final[Mapping[int, frozenset[str]]] = {}
UNEXPLAINED: Final[Mapping[int, frozenset[str]]] = {}
SINCE: Final[Mapping[str, int]] = {}
