"""In what do two files differ? In keys, and in tensors by name: types, shapes, bytes. Weights are not compared."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

from ggufphys.frozen import dataclass
from ggufphys.gguf.file import GGUFFile
from ggufphys.gguf.tensor_table import TensorInfo
from ggufphys.gguf.values import GGUFArray, Value, ValueType


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedKey:
    """A key that both files have, with another value or type in each; of arrays the first `index` where they differ."""

    key: str
    a: Value
    b: Value
    a_type: ValueType
    b_type: ValueType
    index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What is in one file alone, what both have in different ways, and how much they have in common."""

    only_in_a: Mapping[str, Value]
    only_in_b: Mapping[str, Value]
    changed: tuple[ChangedKey, ...]
    n_equal_keys: int
    tensors_only_in_a: tuple[TensorInfo, ...]
    tensors_only_in_b: tuple[TensorInfo, ...]
    changed_tensors: tuple[tuple[TensorInfo, TensorInfo], ...]
    n_equal_tensors: int

    @property
    def is_empty(self) -> bool:
        """Do they declare the same?"""
        return not (
            self.only_in_a or self.only_in_b or self.changed
            or self.tensors_only_in_a or self.tensors_only_in_b or self.changed_tensors
        )  # fmt: skip


def compare(a: GGUFFile, b: GGUFFile) -> Difference:
    """The headers of two files; offsets count as little as the order of keys and tensors."""
    both = [key for key in a.metadata if key in b.metadata]
    changed = tuple(_changed(a, b, both))
    shared = [(t, b.tensors_by_name[t.name]) for t in a.tensors if t.name in b.tensors_by_name]
    unlike = tuple((x, y) for x, y in shared if (x.ne, x.ggml_type) != (y.ne, y.ggml_type))
    return Difference(
        only_in_a={key: value for key, value in a.metadata.items() if key not in b.metadata},
        only_in_b={key: value for key, value in b.metadata.items() if key not in a.metadata},
        changed=changed,
        n_equal_keys=len(both) - len(changed),
        tensors_only_in_a=tuple(t for t in a.tensors if t.name not in b.tensors_by_name),
        tensors_only_in_b=tuple(t for t in b.tensors if t.name not in a.tensors_by_name),
        changed_tensors=unlike,
        n_equal_tensors=len(shared) - len(unlike),
    )


def _changed(a: GGUFFile, b: GGUFFile, keys: Iterable[str]) -> Iterator[ChangedKey]:
    """The keys of both whose values differ, or their types alone: llama.cpp reads a u32 where a u64 stops it."""
    for key in keys:
        x, y, x_type, y_type = a.metadata[key], b.metadata[key], a.value_types[key], b.value_types[key]
        where = first_difference(x, y) if x_type is y_type else -1
        if where is not None:
            yield ChangedKey(key=key, a=x, b=y, a_type=x_type, b_type=y_type, index=where if where >= 0 else None)


def first_difference(a: Value, b: Value) -> int | None:
    """None where two values are the same; otherwise -1, or of two arrays of like elements the first index that differs.

    1 and True differ, as 1 and 1.0 do; a number that is none (NaN) is like itself.
    """
    if not isinstance(a, GGUFArray) or not isinstance(b, GGUFArray):
        return None if type(a) is type(b) and repr(a) == repr(b) else -1
    if a.element_type is not b.element_type:
        return -1
    elements: Any = (
        (a.iter_bytes(), b.iter_bytes()) if a.element_type is ValueType.STRING else (map(repr, a), map(repr, b))
    )
    return next((i for i, (x, y) in enumerate(zip_longest(*elements)) if x != y), None)
