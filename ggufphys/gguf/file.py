"""Opening: which files make up this model, what do they declare together, and are their bytes all there?"""

import os
import stat
from collections.abc import Iterable, Mapping
from functools import cached_property
from mmap import ACCESS_READ, mmap
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from ggufphys.errors import GGUFError, UnsupportedError
from ggufphys.frozen import dataclass
from ggufphys.gguf.ggml_types import FILE_TYPES
from ggufphys.gguf.lengths import note
from ggufphys.gguf.names import split_name
from ggufphys.gguf.reader import parse_header
from ggufphys.gguf.split import Shard, check_siblings, sibling_names
from ggufphys.gguf.tensor_table import TensorInfo
from ggufphys.gguf.values import GGUFArray, Value, ValueType
from ggufphys.paths import beside, is_there, plain
from ggufphys.units import require_kind

if TYPE_CHECKING:
    from pathlib import Path

    from ggufphys.gguf.known import KnownArrays

Kind = Literal["model", "vocab", "adapter", "mmproj", "imatrix", "controlvector", "metadata"]


@dataclass(frozen=True, kw_only=True)
class GGUFFile:
    """A GGUF model as its header declares it, all shards together. Open one with `open_gguf` (or `open_model`).

    `metadata` is the first shard's (the others repeat none of it); `tensors` are in file order, shard by shard.
    The files stay mapped until `close()` or garbage collection; arrays and tensor data are read from the mapping.
    Of a remote file (`url` is set, `file` its name) only the headers are there.
    """

    file: str  # the path that was opened
    shards: tuple[Shard, ...]
    url: str = ""

    @property
    def location(self) -> str:
        """The path that was opened, or the address."""
        return self.url or self.file

    @property
    def path(self) -> "Path":
        """The path that was opened."""
        from pathlib import Path  # what short answers do without

        return Path(self.file)

    @property
    def metadata(self) -> Mapping[str, Value]:
        """Keys and values; arrays are `GGUFArray`, decoded on access."""
        return self.shards[0].header.metadata

    @property
    def value_types(self) -> Mapping[str, ValueType]:
        """The GGUF type of each key's value, as the file has it."""
        return self.shards[0].header.value_types

    @cached_property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """The tensor table of all shards."""
        return tuple(t for shard in self.shards for t in shard.header.tensors)

    @cached_property
    def tensors_by_name(self) -> Mapping[str, TensorInfo]:
        """The tensor table by names."""
        return {t.name: t for t in self.tensors}

    @cached_property
    def split_names(self) -> tuple[tuple[int | None, str], ...]:
        """Each tensor's layer and its name there, None and the whole name outside of layers; in the table's order."""
        return tuple([split_name(t.name) for t in self.tensors])

    @property
    def architecture(self) -> str:
        """`general.architecture`, or an empty string, for a value of another type too."""
        return self._text("general.architecture")

    @property
    def name(self) -> str:
        """`general.name`, as it is whatever its type, or the file's name."""
        return self._shown("general.name") or self.path.stem

    @property
    def file_type(self) -> str:
        """`general.file_type` by llama-quantize's name (`Q4_K_M`), as it is if it has none, or an empty string."""
        value = self.metadata.get("general.file_type")
        if isinstance(value, int) and not isinstance(value, bool):
            return FILE_TYPES.get(value, "")
        return self._shown("general.file_type")

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole files, all shards."""
        return sum(shard.file_bytes for shard in self.shards)

    @property
    def missing_bytes(self) -> int:
        """Declared tensor bytes that are not there (yet), all shards."""
        return sum(shard.missing_bytes for shard in self.shards)

    @cached_property
    def n_params(self) -> int:
        """The number of weights in all tensors."""
        return sum(t.n_elements for t in self.tensors)

    @cached_property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors of known type, without padding."""
        return sum(t.nbytes or 0 for t in self.tensors)

    @property
    def bpw(self) -> float:
        """Bits per weight, averaged over all tensors of known type; 0 when there are none."""
        n_known = sum(t.n_elements for t in self.tensors if t.nbytes is not None)
        return 8 * self.tensor_bytes / n_known if n_known else 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """Oddities worth a warning, one sentence each."""
        notes = [note for shard in self.shards for note in (*shard.header.notes, *shard.notes)]
        if self.missing_bytes:
            place = (
                "at that address (unfinished upload)" if self.url else "on disk (header-only or unfinished download)"
            )
            notes.append(
                f"tensor data is missing: the header declares {self.missing_bytes:,} bytes more than the "
                f"{self.file_bytes:,} {place}"
            )
        if self.url:
            fetched = sum(len(shard.buffer) for shard in self.shards)
            notes.append(f"remote: only the header was read, {fetched:,} of {self.file_bytes:,} bytes")
        return tuple(notes)

    @cached_property
    def kind(self) -> Kind:
        """What the file is for; only a `model` can be run by itself.

        Source: llama.cpp 0c1e570 convert_lora_to_gguf.py (adapter), tools/mtmd/clip.cpp (clip), tools/imatrix.
        """
        declared = self._text("general.type")
        if declared == "adapter" or "adapter.type" in self.metadata:
            return "adapter"
        if declared in ("mmproj", "clip-vision") or self.architecture == "clip":
            return "mmproj"
        if declared == "imatrix" or "imatrix.chunk_count" in self.metadata:
            return "imatrix"
        if self.architecture == "controlvector":
            return "controlvector"
        if self.tensors:
            return "model"
        return "vocab" if "tokenizer.ggml.model" in self.metadata else "metadata"

    def _text(self, key: str) -> str:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def _shown(self, key: str) -> str:
        """A value that only describes, as text for people."""
        value = self.metadata.get(key, "")
        return value if isinstance(value, str) else repr(value)

    def get_str(self, key: str, default: str) -> str:
        """A string value. Raises GGUFError when the key holds something else."""
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise self._wrong_type(key, value, "a string")
        return value

    def get_int(self, key: str, default: int) -> int:
        """An integer value. Raises GGUFError when the key holds something else."""
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong_type(key, value, "an integer")
        return value

    def get_bool(self, key: str, default: bool) -> bool:
        """A boolean value. Raises GGUFError when the key holds something else."""
        value = self.metadata.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong_type(key, value, "a boolean")
        return value

    def get_array(self, key: str) -> GGUFArray | None:
        """An array value, or None when the key is absent. Raises GGUFError when the key holds a scalar."""
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, GGUFArray):
            raise self._wrong_type(key, value, "an array")
        return value

    def require_sizes(self, tensors: Iterable[TensorInfo]) -> None:
        """Refuse tensors whose bytes cannot be told.

        Raises:
            UnsupportedError: one has a type that the pinned llama.cpp does not know.
        """
        for tensor in tensors:
            if tensor.nbytes is None:
                raise UnsupportedError(
                    f"{self.location}: tensor {tensor.name!r} has {tensor.type_name}, whose size is not known here"
                )

    def tensor_data(self, tensor: TensorInfo) -> memoryview:
        """The tensor's bytes, not copied: a view into the mapped file.

        Raises:
            GGUFError: the type's size is not known, the file ends before the tensor does, or it is remote.
        """
        shard = self.shards[tensor.shard]
        if shard.url:
            raise GGUFError(
                f"{shard.url}: only the header was read, tensor {tensor.name!r} is not here: download the file"
            )
        if tensor.nbytes is None:
            raise GGUFError(f"{shard.file}: tensor {tensor.name!r} has {tensor.type_name}, whose size is not known")
        start = shard.header.data_offset + tensor.offset
        if start + tensor.nbytes > len(shard.buffer):
            raise GGUFError(
                f"{shard.file}: tensor {tensor.name!r} ends at byte {start + tensor.nbytes:,}, the file at "
                f"{len(shard.buffer):,}: header-only file or unfinished download"
            )
        return memoryview(shard.buffer)[start : start + tensor.nbytes]

    def close(self) -> None:
        """Unmap the files. Arrays and tensor views must not be used afterwards."""
        for shard in self.shards:
            if isinstance(shard.buffer, mmap):
                shard.buffer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _wrong_type(self, key: str, value: object, expected: str) -> GGUFError:
        found = f"an array of {len(value)}" if isinstance(value, GGUFArray) else repr(value)
        return GGUFError(f"{self.location}: key {key!r} is {found}, expected {expected}")


def open_gguf(path: str | os.PathLike[str], *, known: "KnownArrays | None" = None) -> GGUFFile:
    """Open a GGUF file; of a split model any shard will do, and all of them are opened.

    Who opens many files hands the same `known` to all: vocabularies that repeat are then read once.

    Raises:
        GGUFError: not a readable GGUF, or a shard is missing or belongs to another model.
        OSError: the path does not exist or may not be read.
        TypeError: it is no path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path is {path!r}, a {type(path).__name__}: expected a file's name, a str or a pathlib.Path")
    given = plain(path)
    shard = _open_shard(given, 0, known)
    count = shard.split_number("split.count", 1)
    if count <= 1:
        return GGUFFile(file=given, shards=(shard,))
    names = sibling_names(shard, count)
    files = [beside(given, name) for name in names]
    missing = [name for name, file in zip(names, files, strict=True) if not is_there(file)]
    if missing:
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise GGUFError(f"{given}: {len(missing)} of {count} shards are missing beside it: {named}")
    shards = tuple(_open_shard(p, i, known) for i, p in enumerate(files))
    check_siblings(shards)
    return GGUFFile(file=given, shards=shards)


def _open_shard(path: str, index: int, known: "KnownArrays | None") -> Shard:
    status = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise GGUFError(f"{path}: {kind}, expected a GGUF file")
    if status.st_size == 0:
        raise GGUFError(f"{path}: the file is empty, expected a GGUF file")
    buffer = _mapped(path)
    header = parse_header(buffer, path, shard=index, known=known)
    return Shard(file=path, file_bytes=len(buffer), header=header, buffer=buffer)


def _mapped(path: str) -> mmap:
    """The whole file, to be read. It must not be empty.

    Raises:
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:  # noqa: PTH123
        buffer = mmap(file.fileno(), 0, access=ACCESS_READ)
        inode = os.fstat(file.fileno()).st_ino
    note(path, inode, len(buffer))
    return buffer


def require_file(gguf: object) -> None:
    """Refuse what is no open file.

    Raises:
        TypeError: a path, perhaps.
    """
    require_kind(gguf, GGUFFile, "gguf", 'open_gguf("model.gguf")')
