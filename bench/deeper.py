"""A model that says the same as another and costs several times as much: with layers added that do nothing.

For measurements of what a smaller model can save a larger one, where no two of a family are at hand: how often the
smaller one is right and how much cheaper it is are then given, and the rest is as with any other model. A layer whose
weights are zero adds nothing to what goes through it, and takes as long as any other.
"""

from collections.abc import Iterator
from pathlib import Path

from ggufphys.errors import UnsupportedError
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.gguf.reader import padded
from ggufphys.gguf.values import GGUFArray
from ggufphys.gguf.writer import TensorSpec, Typed, WriteValue, encode_header


def write_deeper(gguf: GGUFFile, path: Path, factor: int) -> Path:
    """Write the model with `factor` times as many layers; those added are a hole in the file, which reads as zeros.

    Raises:
        UnsupportedError: the file's layers are not all alike, so that none stands for those added.
    """
    key = f"{gguf.architecture}.block_count"
    n_layer = gguf.get_int(key, 0)
    own = [TensorSpec(t.name, t.ne, GGMLType(t.ggml_type)) for t in gguf.tensors]
    first = {spec.name.removeprefix("blk.0."): spec for spec in own if spec.name.startswith("blk.0.")}
    shapes = [{s.name.split(".", 2)[2]: s.ne for s in own if s.name.startswith(f"blk.{i}.")} for i in range(n_layer)]
    arrays = [k for k, value in gguf.metadata.items() if isinstance(value, GGUFArray) and not k.startswith("token")]
    if any(shape != shapes[0] for shape in shapes) or any(len(gguf.get_array(k) or ()) == n_layer for k in arrays):
        raise UnsupportedError(f"{gguf.path}: its layers are not all alike, expected a model whose are")
    added = [
        TensorSpec(f"blk.{i}.{name}", spec.ne, spec.ggml_type)
        for i in range(n_layer, factor * n_layer)
        for name, spec in first.items()
    ]
    metadata: dict[str, WriteValue] = {**dict(_metadata(gguf)), key: factor * n_layer}
    with path.open("wb") as file:
        file.write(encode_header(metadata, [*own, *added]))
        for tensor, spec in zip(gguf.tensors, own, strict=True):
            file.write(gguf.tensor_data(tensor))
            file.write(bytes(padded(spec.nbytes) - spec.nbytes))
        file.truncate(file.tell() + sum(padded(spec.nbytes) for spec in added))
    return path


def _metadata(gguf: GGUFFile) -> Iterator[tuple[str, Typed]]:
    for key, value in gguf.metadata.items():
        if isinstance(value, GGUFArray):
            yield key, Typed(tuple(value), value.element_type)
        else:
            yield key, Typed(value, gguf.value_types[key])
