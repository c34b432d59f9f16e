"""The answer to `inspect A --diff B` as text and JSON."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ggufphys.gguf import GGUFArray, GGUFFile, TensorInfo, Value
from ggufphys.gguf.difference import ChangedKey, Difference
from ggufphys.gguf.names import split_name
from ggufphys.gguf.values import ValueType
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, model_lines, table
from ggufphys.report.inspection_json import model_json
from ggufphys.report.metadata import in_json
from ggufphys.units import format_mib

_VALUE_WIDTH: Final = 44
_QUANTITIES: Final = ("model", "context", "compute", "output", "total", "process")
Predictions = tuple[MemoryPrediction, MemoryPrediction]


def difference_text(a: GGUFFile, b: GGUFFile, found: Difference, predictions: Predictions | None) -> str:
    """Keys, tensors in runs of layers, sizes; what is equal is counted."""
    lines = [f"A: {a.location}", *model_lines(a), "", f"B: {b.location}", *model_lines(b), ""]
    keys = list(_key_rows(found))
    lines += [f"keys: {found.n_equal_keys} equal, {len(keys)} different"]
    if keys:
        lines += ["", *table(("key", "A", "B"), keys)]
    n_unlike = len(found.changed_tensors) + len(found.tensors_only_in_a) + len(found.tensors_only_in_b)
    lines += ["", f"tensors: {found.n_equal_tensors} equal, {n_unlike} different (weights are not compared)"]
    if n_unlike:
        lines += ["", *table(("tensor", "layers", "A", "B", "A MiB", "B MiB"), _tensor_rows(found), right=(4, 5))]
    rows = [(name, format_mib(x), format_mib(y), _signed_mib(y - x)) for name, x, y in _sizes(a, b, predictions)]
    return "\n".join([*lines, "", *table(("MiB", "A", "B", "B - A"), rows, right=(1, 2, 3))])


def difference_json(a: GGUFFile, b: GGUFFile, found: Difference, predictions: Predictions | None) -> str:
    """The difference as one document, each tensor in a row of its own."""
    return dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "models": [model_json(a), model_json(b)],
            "equal": found.is_empty,
            "keys": {
                "n_equal": found.n_equal_keys,
                "only_in_a": _values(found.only_in_a),
                "only_in_b": _values(found.only_in_b),
                "changed": [
                    {
                        "key": c.key,
                        "a": _value(c.a),
                        "b": _value(c.b),
                        "a_type": c.a_type.name,
                        "b_type": c.b_type.name,
                        "index": c.index,
                    }
                    for c in found.changed
                ],
            },
            "tensors": {
                "n_equal": found.n_equal_tensors,
                "only_in_a": [_tensor(t) for t in found.tensors_only_in_a],
                "only_in_b": [_tensor(t) for t in found.tensors_only_in_b],
                "changed": [{"name": x.name, "a": _tensor(x), "b": _tensor(y)} for x, y in found.changed_tensors],
            },
            "sizes": [{"quantity": n, "a": x, "b": y} for n, x, y in _sizes(a, b, predictions)],
        }
    )


def _sizes(a: GGUFFile, b: GGUFFile, predictions: Predictions | None) -> Iterator[tuple[str, int, int]]:
    yield "file", a.file_bytes, b.file_bytes
    yield "tensors", a.tensor_bytes, b.tensor_bytes
    if predictions is not None:
        for name in _QUANTITIES:
            yield name, getattr(predictions[0], f"{name}_bytes"), getattr(predictions[1], f"{name}_bytes")


def _key_rows(found: Difference) -> Iterator[tuple[str, str, str]]:
    for change in found.changed:
        yield (change.key, *_shown_pair(change))
    for key, value in found.only_in_a.items():
        yield key, _shown(value), "-"
    for key, value in found.only_in_b.items():
        yield key, "-", _shown(value)


def _shown_pair(change: ChangedKey) -> tuple[str, str]:
    """Both values; of arrays the elements where they part."""
    a, b, index = change.a, change.b, change.index
    if index is None or not isinstance(a, GGUFArray) or not isinstance(b, GGUFArray):
        pair = _shown(a), _shown(b)
        if change.a_type is change.b_type or ValueType.ARRAY in (change.a_type, change.b_type):
            return pair
        return f"{pair[0]} ({change.a_type.name.lower()})", f"{pair[1]} ({change.b_type.name.lower()})"
    return _shown_at(a, index), _shown_at(b, index)


def _shown_at(array: GGUFArray, index: int) -> str:
    at = _cut(repr(array[index])) if index < len(array) else "ends"
    return f"{len(array):,} {array.element_type.name.lower()}, [{index}] {at}"


def _shown(value: Value) -> str:
    if isinstance(value, GGUFArray):
        return f"{len(value):,} {value.element_type.name.lower()}"
    return _cut(repr(value) if isinstance(value, str) else str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE_WIDTH else f"{text[: _VALUE_WIDTH - 1]}…"


def _tensor_rows(found: Difference) -> list[tuple[str, ...]]:
    """Tensors that differ alike in several layers share a row."""
    pairs: list[tuple[str, TensorInfo | None, TensorInfo | None]] = [
        *((x.name, x, y) for x, y in found.changed_tensors),
        *((t.name, t, None) for t in found.tensors_only_in_a),
        *((t.name, None, t) for t in found.tensors_only_in_b),
    ]
    groups: dict[tuple[str, str, str], list[tuple[int | None, int, int]]] = {}
    for whole_name, a, b in pairs:
        layer, name = split_name(whole_name)
        unlike_shapes = a is None or b is None or a.ne != b.ne
        group = groups.setdefault((name, _described(a, unlike_shapes), _described(b, unlike_shapes)), [])
        group.append((layer, (a.nbytes or 0) if a else 0, (b.nbytes or 0) if b else 0))
    return [
        (name, _runs(layer for layer, _, _ in group), a, b, format_mib(sum(x for _, x, _ in group)),
         format_mib(sum(y for _, _, y in group)))
        for (name, a, b), group in groups.items()
    ]  # fmt: skip


def _described(tensor: TensorInfo | None, with_shape: bool) -> str:
    if tensor is None:
        return "-"
    return f"{tensor.type_name} {' x '.join(map(str, tensor.ne))}" if with_shape else tensor.type_name


def _runs(layers: Iterable[int | None]) -> str:
    """`0-4, 6` for 0, 1, 2, 3, 4 and 6."""
    runs: list[list[int]] = []
    for layer in sorted(layer for layer in layers if layer is not None):
        if runs and runs[-1][-1] == layer - 1:
            runs[-1][1:] = [layer]
        else:
            runs.append([layer])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _signed_mib(nbytes: int) -> str:
    return f"+{format_mib(nbytes)}" if nbytes > 0 else format_mib(nbytes)


def _values(values: Mapping[str, Value]) -> dict[str, Any]:
    return {key: _value(value) for key, value in values.items()}


def _value(value: Value) -> Any:
    """A scalar as it is; an array by its type and length, since a vocabulary would be megabytes."""
    if isinstance(value, GGUFArray):
        return {"array_of": value.element_type.name, "length": len(value)}
    return in_json(value)


def _tensor(tensor: TensorInfo) -> dict[str, Any]:
    ne: Sequence[int] = tensor.ne
    return {"name": tensor.name, "ne": list(ne), "type": tensor.type_name, "nbytes": tensor.nbytes}
