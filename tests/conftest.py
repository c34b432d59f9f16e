"""What all tests share: llama.cpp's environment, and the installed ggml's own facts."""

import ctypes
import os
import signal
import sys
from pathlib import Path

import pytest

from ggufphys.machine import llama_env

llama_env.prepare()
# Matrices are small, and there is a process of tests for each core: BLAS's threads would mostly wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# What runs of tests leave behind (derived files, how right predictions were) is nothing that this machine's user made.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("PIP_CACHE_DIR", str(CACHE / "pip"))
os.environ["XDG_CACHE_HOME"] = str(Path(__file__).parent.parent / ".pytest_cache" / "xdg")
# A shell's background jobs ignore Ctrl-C, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Close what llama-cpp-python leaves open until the interpreter ends, which would complain of it then."""
    if left := sys.modules.get("llama_cpp._utils"):
        left.outnull_file.close()
        left.errnull_file.close()


@pytest.fixture(scope="session")
def ggml_type_sizes() -> dict[int, tuple[int, int]]:
    """Block and byte size of every type the installed ggml knows, by its number."""
    from llama_cpp import llama_cpp

    library = llama_cpp._lib
    library.ggml_blck_size.restype = ctypes.c_int64
    library.ggml_type_size.restype = ctypes.c_size_t
    sizes = {n: (library.ggml_blck_size(n), library.ggml_type_size(n)) for n in range(43)}
    return {n: size for n, size in sizes.items() if size[0] > 0}
