"""What the rooms may touch, beyond what import-linter can say."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import ggufphys
from ggufphys.arch import RULES

ROOT = Path(ggufphys.__file__).parent.parent
ROOMS = ("ggufphys", "refengine", "server", "bench")


def test_llama_cpp_is_loaded_in_few_places() -> None:
    """llama.cpp has one logger for the whole process: code in this process goes through the engine's library module.

    `refengine/peers/ggml.py` calls pure functions that log nothing, `refengine/text/llama.py` puts the logger back as
    it was; `bench/derive.py`, `bench/clip/measure.py`, `bench/running/rpc_worker.py`,
    `refengine/peers/llama_child.py` import it in a child process.
    """
    loads = re.compile(r"^\s*(import llama_cpp|from llama_cpp)|import_module\(\"llama_cpp", re.MULTILINE)
    found = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if loads.search(path.read_text())
    }

    in_child = {
        "bench/derive.py", "bench/clip/measure.py", "bench/running/rpc_worker.py", "refengine/peers/llama_child.py",
    }  # fmt: skip
    assert found == {"server/engine/llama/library.py", "refengine/peers/ggml.py", "refengine/text/llama.py"} | in_child


def named_architectures(tree: ast.AST) -> Iterator[str]:
    """Architectures' names that code compares something called an architecture with."""
    for node in ast.walk(tree):
        sides: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Match):
            sides = [node.subject, *(case.pattern for case in node.cases)]
        if any(re.search(r"\barch(itecture)?$", ast.unparse(side)) for side in sides):
            constants = (n.value for side in sides for n in ast.walk(side) if isinstance(n, ast.Constant))
            yield from (str(value) for value in constants if value in RULES)


def test_architectures_are_told_apart_by_tables() -> None:
    """No code asks which architecture it has before it, but for rules and graphs; a projector is no architecture."""
    rooms_of_their_own = (ROOT / "ggufphys" / "arch", ROOT / "ggufphys" / "graph" / "models")
    found = [
        (str(path.relative_to(ROOT)), name)
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if not any(path.is_relative_to(folder) for folder in rooms_of_their_own)
        if "arch" in (text := path.read_text())
        for name in named_architectures(ast.parse(text))
        if name != "clip"
    ]

    assert not found


def test_comparisons_with_architectures_are_found() -> None:
    """The search above finds what it looks for."""
    code = """
if gguf.architecture == "llama": pass
if h.arch in ("gemma3", "other"): pass
match arch:
    case "qwen3": pass
if name == "falcon" or arch == other or arch in TABLE: pass
"""

    assert set(named_architectures(ast.parse(code))) == {"llama", "gemma3", "qwen3"}


def test_public_names_are_what_is_promised() -> None:
    """`__all__` holds what the design promises, each name once."""
    assert {"open_gguf", "predict_memory", "Params", "GGUFError", "UnsupportedError"} <= set(ggufphys.__all__)
    assert len(set(ggufphys.__all__)) == len(ggufphys.__all__)
    assert all(hasattr(ggufphys, name) for name in ggufphys.__all__)


def test_what_is_defined_is_used() -> None:
    """A function, class or constant that nothing names is left over: a private one in its file, others anywhere."""
    texts = {path: path.read_text() for room in (*ROOMS, "scripts", "tests") for path in (ROOT / room).rglob("*.py")}
    anywhere = Counter(re.findall(r"\w+", "\n".join(texts.values())))
    left_over = []
    for path, text in texts.items():
        if path.is_relative_to(ROOT / "tests"):
            continue
        for node in ast.parse(text).body:
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    pass
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    pass
                case _:
                    continue
            n_named = len(re.findall(rf"\b{name}\b", text)) if re.match("_[^_]", name) else anywhere[name]
            if n_named < 2 and not name.startswith("__"):
                left_over.append(f"{path.relative_to(ROOT)}: {name}")
    assert left_over == []
