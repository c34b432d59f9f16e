"""How do the embedded model's quantised files come to be? By llama.cpp's own quantiser, on first use, into a cache.

The quantiser runs in a child process (`python -m bench.derive SOURCE TARGET FILE_TYPE`): it is chatty, and if it
crashes it takes only the child with it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from bench.cache import DERIVED, MOST_BYTES, WANTED_S, cache_folder, make_room, remove_unfinished, used
from ggufphys.embedded import MODEL
from ggufphys.errors import GGUFError, GGUFPhysError, OutputError
from ggufphys.gguf import open_gguf
from ggufphys.gguf.ggml_types import FILE_TYPES
from ggufphys.machine.children import describe, died, environment, module_command
from ggufphys.machine.output import whole_file
from ggufphys.plan.quantize import ftype_number, parse_file_type
from ggufphys.units import format_bytes

FILE_TYPE_IDS: Final = {name: number for number, name in FILE_TYPES.items()}
ADVICE: Final = ": make the cache folder writable, or set XDG_CACHE_HOME to one that is"
FULL_BYTES: Final = 1 << 20  # with less than that left a disk is full: a file that is being written has taken the rest


class DeriveError(GGUFPhysError):
    """llama.cpp's quantiser failed; the message says how, and the last lines it printed."""


def file_type_named(text: str) -> str:
    """A file type by any of llama-quantize's names for it: `q4_k` is `Q4_K_M`, and so is `15`.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    try:
        return FILE_TYPES[ftype_number(parse_file_type(text))]
    except (ValueError, LookupError):
        raise ValueError(f"unknown file type {text!r}: expected one of {' '.join(FILE_TYPE_IDS)}") from None


def derived(file_type: str, source: Path = MODEL) -> Path:
    """Return `source` quantised to `file_type`, made now if the cache does not hold it.

    The cached file's name carries a hash of the source's content and of llama-cpp-python's version, so that neither a
    new model nor a new quantiser ever meets an old file. Two processes may derive the same file at once: each writes
    its own, and the last rename wins. Behind a new one the cache is held to its bound (`bench.cache`).

    Args:
        file_type: `Q8_0`, `Q4_K_M`, ..., as `file_type_named` knows them; the source's own type gives the source.
        source: a GGUF; of one that is quantised already the result is worse than of floats.

    Raises:
        ValueError: the name is unknown.
        GGUFError: the source is not a readable GGUF.
        OSError: the source can't be read.
        OutputError: the cache folder can't be written.
        DeriveError: the quantiser died or refused; it refuses types that need an importance matrix (`IQ2_XS`, ...).
    """
    file_type = file_type_named(file_type)
    with open_gguf(source) as gguf:
        if gguf.file_type == file_type:
            return source
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(metadata.version("llama-cpp-python").encode())
    key = digest.hexdigest()[:16]
    stem = source.stem.removesuffix("-f16")
    target = cache_folder() / f"{stem}-{file_type.lower()}-{key}.gguf"
    if target.exists() and _is_whole(target):
        used(target)
        return target
    remove_unfinished(target.parent)
    with whole_file(target, makes_folder=True, advice=ADVICE) as partial:
        _quantize_in_child(source, partial, file_type)
    make_room(target.parent, DERIVED, MOST_BYTES, spared_s=WANTED_S)
    return target


def _is_whole(path: Path) -> bool:
    """Is a file that was kept still one? A disk that was full or broken may have left less; it is made again then."""
    try:
        with open_gguf(path) as gguf:
            missing = gguf.missing_bytes
    except GGUFError:
        missing = 1
    if missing:
        print(f"ggufphys: {path} is damaged, and made again", file=sys.stderr)
    return not missing


def _quantize_in_child(source: Path, target: Path, file_type: str) -> None:
    command = module_command("bench.derive", str(source), str(target), file_type)
    done = subprocess.run(
        command, env=environment(), capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode == 0 and target.stat().st_size > 0:
        return
    free_bytes = shutil.disk_usage(target.parent).free
    free = format_bytes(free_bytes)
    if free_bytes < FULL_BYTES:  # the quantiser says "iostream error", or nothing
        raise OutputError(f"no room for {file_type} of {source}: {target.parent} has {free} free{ADVICE}")
    how = f"{'died by' if died(done.returncode) else 'ended with'} {describe(done.returncode)}"
    said = "\n".join(done.stderr.strip().splitlines()[-5:])
    raise DeriveError(
        f"llama.cpp's quantiser {how} while making {file_type} of {source} ({target.parent} has {free} free; another "
        f"XDG_CACHE_HOME puts it elsewhere); its last lines:\n{said}"
    )


def _quantize(source: str, target: str, file_type: str) -> int:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPE_IDS[file_type]
    params.allow_requantize = True
    llama_cpp.llama_backend_init()
    return int(llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), params))


if __name__ == "__main__":
    sys.exit(_quantize(*sys.argv[1:]))
