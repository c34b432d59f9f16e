"""Which files make up a split model, and do they belong together?

Source: llama.cpp 0c1e570 src/llama.cpp, llama_split_path; tools/gguf-split (the split.* keys).
"""

import re
from typing import TYPE_CHECKING, Final

from ggufphys.errors import GGUFError
from ggufphys.frozen import dataclass, field
from ggufphys.gguf.reader import Header
from ggufphys.gguf.values import Buffer
from ggufphys.paths import last_part

if TYPE_CHECKING:
    from pathlib import Path

SHARD_NAME: Final = r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of a model: its header, and the bytes of it that are there.

    `url` is set for a remote file: `file` is then its name, and `buffer` holds no more than its header.
    """

    file: str  # its path
    file_bytes: int
    header: Header
    buffer: Buffer = field(repr=False)
    url: str = ""
    notes: tuple[str, ...] = ()  # of how it was read; what the header itself gives reason for is in header.notes

    @property
    def location(self) -> str:
        """The file's path, or its address."""
        return self.url or self.file

    @property
    def path(self) -> "Path":
        """The file's path."""
        from pathlib import Path  # what a header's reader does without

        return Path(self.file)

    @property
    def name(self) -> str:
        """The file's own name."""
        return last_part(self.file)

    @property
    def missing_bytes(self) -> int:
        """Tensor bytes that the header declares and the file does not hold: a header-only or unfinished download."""
        return max(0, self.header.end_offset - self.file_bytes) if self.header.tensors else 0

    def split_number(self, key: str, default: int) -> int:
        """An integer of the split.* keys. Raises GGUFError when the key holds something else."""
        value = self.header.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise GGUFError(f"{self.location}: key {key!r} is {value!r}, expected an integer")
        return value


def model_of(path: str) -> str:
    """What tells models apart: a file's path, of a shard that of all shards."""
    match = re.fullmatch(SHARD_NAME, path)
    return f"{match['stem']} of {match['count']}" if match else path


def sibling_names(shard: Shard, count: int) -> list[str]:
    """The names of all `count` files, in order, from that of one of them.

    Raises:
        GGUFError: the file is not named as a shard of so many.
    """
    match = re.fullmatch(SHARD_NAME, shard.name)
    if match is None or int(match["count"]) != count:
        raise GGUFError(
            f"{shard.location}: one of {count} shards, but not named so: expected a name ending in "
            f"-00001-of-{count:05d}.gguf"
        )
    return [f"{match['stem']}-{i + 1:05d}-of-{count:05d}.gguf" for i in range(count)]


def check_siblings(shards: tuple[Shard, ...]) -> None:
    """Check that these are the shards of one model, in order. How many there are llama.cpp asks the first alone.

    Source: llama.cpp 0c1e570 src/llama-model-loader.cpp, llama_model_loader ctor.

    Raises:
        GGUFError: one says it is another, or tensors are missing or there twice.
    """
    count = len(shards)
    names: set[str] = set()
    for index, shard in enumerate(shards):
        number, total = shard.split_number("split.no", index), count if index else shard.split_number("split.count", 1)
        if (number, total) != (index, count):
            raise GGUFError(
                f"{shard.location}: it says it is shard {number + 1} of {total}, its name says {index + 1} of {count}"
            )
        for tensor in shard.header.tensors:
            if tensor.name in names:
                raise GGUFError(f"{shard.location}: tensor {tensor.name!r} is in an earlier shard too")
            names.add(tensor.name)
    declared = shards[0].split_number("split.tensors.count", len(names))
    if declared != len(names):
        raise GGUFError(f"{shards[0].location}: its {count} shards hold {len(names)} tensors, expected {declared}")
