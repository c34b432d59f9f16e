"""What the rooms may touch, beyond what import-linter can say."""

import re
from pathlib import Path

import ggufphys

ROOT = Path(ggufphys.__file__).parent.parent
ROOMS = ("ggufphys", "refengine", "server", "bench")


def test_llama_cpp_is_loaded_in_few_places() -> None:
    """llama.cpp has one logger for the whole process: code in this process goes through the engine's library module.

    `refengine/ggml.py` calls pure functions that log nothing; `bench/derive.py` and `bench/clip/measure.py` import it
    in a child process.
    """
    loads = re.compile(r"^\s*(import llama_cpp|from llama_cpp)|import_module\(\"llama_cpp", re.MULTILINE)
    found = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if loads.search(path.read_text())
    }

    assert found == {"server/engine/library.py", "refengine/ggml.py", "bench/derive.py", "bench/clip/measure.py"}


def test_public_names_are_what_is_promised() -> None:
    """`__all__` is sorted and holds what the design promises."""
    assert {"open_gguf", "predict_memory", "Params", "GGUFError", "UnsupportedError"} <= set(ggufphys.__all__)
    assert sorted(ggufphys.__all__) == ggufphys.__all__
    assert all(hasattr(ggufphys, name) for name in ggufphys.__all__)
