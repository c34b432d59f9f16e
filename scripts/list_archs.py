"""Which architectures does a llama.cpp source tree have, and does the table say the same of them?

usage: python -m scripts.list_archs TREE [--list]        TREE: a checkout of llama.cpp

Reads each architecture's name, model class and kind of memory out of the C++ source, and sets them beside the rows of
`ggufphys/arch/table.py`, whose kind is what the small models of `tests/archs.py` keep. Prints the differences, or with
`--list` everything; exit 1 if there is any difference. To be run when the pinned llama.cpp changes.

Source: llama.cpp 0c1e570 src/llama-arch.cpp, LLM_ARCH_NAMES, llm_arch_is_recurrent, llm_arch_is_hybrid;
src/llama-model.cpp, llama_model_mapping, llama_model::create_memory; src/models/, load_arch_hparams.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.running.program import run_program
from ggufphys import open_gguf
from ggufphys.arch import RULES, BlockKV, RecurrentState, WindowKV, read_hparams
from ggufphys.arch.caches import INDEXER, INDEXER_VALUES
from tests import archs

SPARSE: Final = re.compile(r"llama_kv_cache_(dsa|msa|dsv4)")


@dataclass(frozen=True, slots=True)
class SourceArch:
    """What the source says of an architecture."""

    name: str
    model_class: str
    memory: str  # none, attention, recurrent, hybrid, sparse; "with windows" where some model of it has any


def read_tree(tree: Path) -> Mapping[str, SourceArch]:
    """The architectures that a source tree maps to a model class, by name.

    Raises:
        ValueError: the source no longer looks as this script expects.
    """
    source = tree / "src"
    arch, model = (_code(source / name) for name in ("llama-arch.cpp", "llama-model.cpp"))
    names = dict(re.findall(r'\{\s*(LLM_ARCH_\w+),\s*"([^"]+)"\s*\}', _body(arch, "LLM_ARCH_NAMES")))
    classes = _cases(_body(model, "llama_model_mapping"), r"return new (\w+)")
    memories = _cases(_body(model, "llama_model::create_memory"), r"res = (?:new )?(\w+)")
    kinds = {
        kind: set(_cases(_body(arch, f"llm_arch_is_{kind}"), r"return (true)")) for kind in ("recurrent", "hybrid")
    }
    windowed = _windowed_classes(source / "models")

    def memory(enum: str, model_class: str) -> str:
        own = memories.get(enum, ())
        if "nullptr" in own:
            return "none"
        if any(SPARSE.match(name) for name in own):
            return "sparse"
        kind = next((kind for kind, members in kinds.items() if enum in members), "attention")
        return kind + " with windows" * (model_class in windowed)

    return {
        names[enum]: SourceArch(names[enum], model_class, memory(enum, model_class))
        for enum, (model_class, *_) in classes.items()
    }


def read_table() -> Mapping[str, str]:
    """The kind of memory of each row of our table, by what its small models keep; empty where none can run alone."""
    kept: dict[str, set[str]] = {name: set() for name in RULES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        for name, record in archs.records().items():
            if all(row == "refused" for row in record.rows):
                continue
            path.write_bytes(archs.header(name))
            with open_gguf(path) as gguf:
                h = read_hparams(gguf)
            words = (word for layer in RULES[h.arch].layers(h) for cache in layer for word in _words(cache))
            kept[h.arch] |= {"runs", *words}
    return {name: _kind(words) for name, words in kept.items()}


def _words(cache: object) -> Iterator[str]:
    if isinstance(cache, RecurrentState):
        yield "recurrent"
        return
    yield "attention"
    if isinstance(cache, WindowKV):
        yield "windows"
    if isinstance(cache, BlockKV) or getattr(cache, "kind", "") in (INDEXER, INDEXER_VALUES):
        yield "sparse"


def _kind(words: set[str]) -> str:
    if not words:
        return ""
    if "recurrent" in words:
        kind = "hybrid" if "attention" in words else "recurrent"
    elif "sparse" in words:
        return "sparse"
    else:
        kind = "attention" if "attention" in words else "none"
    return kind + " with windows" * ("windows" in words)


def differences(source: Mapping[str, SourceArch], table: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each difference."""
    for name in sorted(source.keys() - table.keys()):
        yield f"{name}: {source[name].model_class}, memory {source[name].memory}, has no row in the table"
    for name in sorted(table.keys() - source.keys()):
        yield f"{name}: has a row, but llama.cpp has no model class for it"
    for name in sorted(source.keys() & table.keys()):
        if table[name] and table[name] != source[name].memory:
            yield f"{name}: llama.cpp's memory is {source[name].memory}, the table's {table[name]}"


def missing_files(tree: Path) -> Iterator[str]:
    """A sentence for each file that a row names as its source and that the tree lacks."""
    for rule in RULES.values():
        for name in re.findall(r"[\w/-]+\.cpp", rule.source):
            if not (tree / "src" / name).exists():
                yield f"{rule.name}: its source, src/{name}, is gone"


# -- reading C++


def _code(path: Path) -> str:
    return re.sub(r"//.*", "", path.read_text())


def _body(code: str, name: str) -> str:
    """What stands between the braces of the function or table `name`, at its definition."""
    definition = re.search(rf"^\S[^\n;]*\b{re.escape(name)}\b[^;{{]*\{{", code, re.MULTILINE)
    if definition is None:
        raise ValueError(f"no definition of {name}: llama.cpp has moved it, and this script must follow")
    end = code.find("\n}", definition.end())
    return code[definition.end() : end]


def _cases(body: str, result: str) -> dict[str, tuple[str, ...]]:
    """For each `case` of an architecture all that `result` finds before the case that follows."""
    found: dict[str, tuple[str, ...]] = {}
    pending: list[str] = []
    fresh = False
    for match in re.finditer(rf"case (LLM_ARCH_\w+):|(default):|{result}", body):
        case, default, value = match.groups()
        if case or default:
            pending = ([] if fresh else pending) if case else []
            pending += [case] if case else []
            fresh = False
        else:
            found.update({name: (*found.get(name, ()), value) for name in pending})
            fresh = True
    return found


def _windowed_classes(models: Path) -> set[str]:
    """Classes whose loader sets a kind of window, themselves or in the class that they come from."""
    setting = re.compile(r"swa_type\s*=\s*LLAMA_SWA_TYPE_(?!NONE)")
    loads: dict[str, bool] = {}
    for path in sorted(models.glob("*.cpp")):
        code = _code(path)
        for match in re.finditer(r"^void (\w+)::load_arch_hparams", code, re.MULTILINE):
            loads[match[1]] = setting.search(code, match.end(), code.find("\n}", match.end())) is not None
    bases = dict(re.findall(r"struct (\w+) : public (\w+)", _code(models / "models.h")))
    return {name for name in (*loads, *bases) if loads.get(name, loads.get(bases.get(name, ""), False))}


def main() -> int:
    """Print the differences, or everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, help="a checkout of llama.cpp")
    parser.add_argument("--list", action="store_true", help="print every architecture, not the differences alone")
    args = parser.parse_args()
    try:
        source = read_tree(args.tree)
    except (OSError, ValueError) as error:
        print(f"{args.tree} cannot be read as llama.cpp's source: {error}", file=sys.stderr)
        return 2
    if args.list:
        for arch in source.values():
            print(f"{arch.name:<18} {arch.model_class:<32} {arch.memory}")
    found = [*differences(source, read_table()), *missing_files(args.tree)]
    for sentence in found:
        print(sentence)
    print(f"{len(source)} architectures in the source, {len(RULES)} in the table, {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    run_program(main)
