"""Every single change of a model's tensors: each one removed, of another shape, of another type, and others added."""

from collections.abc import Iterator
from dataclasses import replace

from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.gguf.names import split_name
from ggufphys.gguf.writer import TensorSpec
from tests.load_changes import Change, Draft

TYPES = (GGMLType.F32, GGMLType.F16, GGMLType.Q8_0, GGMLType.Q4_K, GGMLType.I32)


def changes(draft: Draft) -> Iterator[Change]:
    """All changes, tensor by tensor."""
    yield from more(draft)
    for at, tensor in enumerate(draft.tensors):
        yield Change("less", tensor.name, replace(draft, tensors=draft.tensors[:at] + draft.tensors[at + 1 :]))
        for other in (*_reshaped(tensor), *_retyped(tensor)):
            tensors = (*draft.tensors[:at], other, *draft.tensors[at + 1 :])
            kind = "shape" if other.ne != tensor.ne else "type"
            what = f"{tensor.name} {tensor.ne} {tensor.ggml_type.name} -> {other.ne} {other.ggml_type.name}"
            yield Change(kind, what, replace(draft, tensors=tensors))


def _reshaped(tensor: TensorSpec) -> Iterator[TensorSpec]:
    for axis in range(len(tensor.ne)):
        ne = list(tensor.ne)
        ne[axis] += SIZES[tensor.ggml_type].block_size if axis == 0 else 1
        yield replace(tensor, ne=tuple(ne))
    if len(tensor.ne) > 1 and tensor.ne[::-1] != tensor.ne and tensor.ne[-1] % SIZES[tensor.ggml_type].block_size == 0:
        yield replace(tensor, ne=tensor.ne[::-1])
    if len(tensor.ne) > 1:
        yield replace(tensor, ne=(tensor.n_elements,))
    if len(tensor.ne) < 4:
        yield replace(tensor, ne=(*tensor.ne, *(1,) * (3 - len(tensor.ne)), 2))


def _retyped(tensor: TensorSpec) -> Iterator[TensorSpec]:
    for kind in TYPES:
        if kind != tensor.ggml_type and tensor.ne[0] % SIZES[kind].block_size == 0:
            yield replace(tensor, ggml_type=kind)


def more(draft: Draft) -> Iterator[Change]:
    """A tensor that nothing knows, and each that there might be beside one that is there."""
    there = {t.name for t in draft.tensors}
    others = [TensorSpec("extra.weight", (32,), GGMLType.F32)]
    for tensor in draft.tensors:
        il, _ = split_name(tensor.name)
        base, _, suffix = tensor.name.rpartition(".")
        if suffix == "weight":
            others.append(TensorSpec(f"{base}.bias", tensor.ne[1:2] or tensor.ne, GGMLType.F32))
            others += [
                TensorSpec(f"{base}.{scale}", tensor.ne[2:] or (1,), GGMLType.F32) for scale in ("scale", "input_scale")
            ]
        if il == 0:
            others.append(replace(tensor, name=tensor.name.replace(".0.", ".99.", 1)))
    for other in others:
        if other.name not in there:
            there.add(other.name)
            what = f"{other.name} {other.ne}"
            yield Change("more", what, replace(draft, tensors=(*draft.tensors, other)))
