"""Record which variants of the small models llama.cpp loads, and their bytes, in `tests/data/variants.json`.

usage: python -m scripts.record_variants [ARCH...]        all, or those named; the others keep their records

For each model it asks llama.cpp which tensors it does without, in all layers and in the last alone, and which of those
that other models of the architecture have it takes besides; tensors that it no longer loads then are left out, too.
What an earlier model of the architecture has shown is not asked again. Each file is then really loaded, in each of
`tests.variants.WAYS`. llama.cpp may abort, so this happens in child processes, which go on behind what ended them.
Needs the pinned llama-cpp-python on Linux x86-64 with AVX2, and some minutes.

Source: llama.cpp 0c1e570 src/llama-model-loader.cpp, check_tensor_dims, create_tensor, done_getting_tensors.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.running.program import run_program
from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec
from ggufphys.machine import llama_env
from ggufphys.machine.llama_log import hear
from scripts.record_oracle import load
from tests import archs, oracle, variants
from tests.variants import Row, Variant

MENDS = 30  # how often the loader may complain about one variant
Tensors = dict[str, TensorSpec]


def main() -> None:
    """Record and write; of a child: ask llama.cpp about a model."""
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]))
        return
    by_arch: dict[str, list[str]] = defaultdict(list)
    for name in archs.records():
        by_arch[archs.models()[name].arch].append(name)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arch", nargs="*", metavar="ARCH", help="record these alone (default: all)")
    names: list[str] = parser.parse_args().arch
    if unknown := sorted(set(names) - by_arch.keys()):
        parser.error(f"no small model is of {', '.join(unknown)}: tests/data/archs.toml has their architectures")
    known = json.loads(variants.RECORDS.read_text())["models"] if variants.RECORDS.exists() and names else {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(_record, [by_arch[arch] for arch in names or by_arch]):
            known.update(variants.encode(found))
            assert dict(variants.decode(json.loads(json.dumps(variants.encode(found))))) == found
            for name in {v.name: 0 for v in found}:
                print(f"{name}: {sum(v.name == name for v in found)} files", flush=True)
            _write(known)


def _write(known: Mapping[str, Any]) -> None:
    models = {name: known[name] for name in archs.records() if name in known}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(e, separators=(',', ':'))}" for name, e in models.items())
    variants.RECORDS.write_text(f'{{"llama_cpp": "0c1e570", "models": {{\n{lines}\n}}}}\n')


def _record(names: Sequence[str]) -> dict[Variant, tuple[Row, ...]]:
    """The variants of an architecture's models: each label once."""
    found: dict[Variant, tuple[Row, ...]] = {}
    stems = {variants.stem_of(t.name) for name in names for t in archs.records()[name].tensors}
    for name in names:
        shown = {v.label for v in found}
        ended: list[str] = []  # labels, and a label with a way
        rows: dict[Variant, tuple[Row, ...]] = {}
        while True:
            done = sorted(v.label for v in rows)
            task = {"name": name, "stems": sorted(stems), "shown": sorted(shown), "ended": ended, "done": done}
            answer = _child(task)
            lines = [json.loads(line) for line in answer.stdout.splitlines()]
            rows.update(_variant(name, line) for line in lines if "rows" in line)
            if answer.returncode == 0 or not lines or lines[-1]["asked"] in ended:
                break
            ended.append(lines[-1]["asked"])
        if answer.returncode:
            print(f"{name}: NO RECORD: {answer.stderr[-500:]}", flush=True)
            continue
        found.update(rows)
    return found


def _variant(name: str, line: Mapping[str, Any]) -> tuple[Variant, tuple[Row, ...]]:
    more = tuple(archs.unpack(line["more"]))
    variant = Variant(name=name, label=line["label"], less=frozenset(line["less"]), more=more)
    return variant, tuple(row if isinstance(row, str) else tuple(row) for row in line["rows"])


def _child(task: Mapping[str, Any]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "scripts.record_variants", "--child", json.dumps(task)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


# -- in the child


class Asker:
    """One model in llama.cpp: which variants of it load, and what they take."""

    def __init__(self, api: Any, task: Mapping[str, Any], folder: Path, said: list[str]) -> None:
        self.api, self.folder, self.said = api, folder, said
        self.name, self.ended = str(task["name"]), frozenset(task["ended"])
        self.shown, self.done = frozenset(task["shown"]), frozenset(task["done"])
        self.stems: Sequence[str] = task["stems"]
        self.base = {t.name: t for t in map(variants.here, archs.records()[self.name].tensors)}

    def variants(self) -> Iterator[tuple[str, Tensors]]:
        """What loads, by label: as it is, with less, with more."""
        yield variants.AS_RECORDED, self.base
        stems = variants.by_stem(self.base)
        missing: list[str] = []
        for stem, names in stems.items():
            parts = {f"without {stem}": names, f"without the last {stem}": names[-1:]}
            for label, part in list(parts.items())[: 1 if len(names) == 1 else 2]:
                tensors = self._tried(label, {n: t for n, t in self.base.items() if n not in part})
                if tensors is not None:
                    missing += part
                    if label not in self.shown:
                        yield label, tensors
        everything = self._tried("none of these", {n: t for n, t in self.base.items() if n not in missing})
        if everything is not None and len(set(missing)) > 1:
            yield f"none of {len(set(missing))} that may be missing", everything
        layers = sorted({int(m[1]) for n in self.base if (m := re.match(r"blk\.(\d+)\.", n))})
        for stem in (*self.stems, "blk.N.attn_qkv.weight"):
            label = f"with {stem}"
            names = [stem.replace(".N.", f".{il}.") for il in layers] if ".N." in stem else [stem]
            added = [TensorSpec(n, (1,), GGMLType.F32) for n in names if n not in self.base]
            if added and label not in self.shown:
                tensors = self._tried(label, {**self.base, **{t.name: t for t in added}})
                if tensors is not None and all(t.n_elements for t in tensors.values()):
                    yield label, tensors
        scaled = variants.scaled(self.name)
        if scaled.more and scaled.label not in self.shown:
            yield scaled.label, {**self.base, **{t.name: t for t in scaled.more}}

    def rows(self, label: str, tensors: Tensors) -> Iterator[Row]:
        """What llama.cpp accounts in each way."""
        path = self._write(tensors)
        asked = oracle.Oracle(self.api, os.fspath(path), no_alloc=False)
        for i, params in enumerate(variants.WAYS):
            key = f"{label} | {i}"
            if key in self.ended or f"{label} | 0" in self.ended:  # what ends it at first will end it again
                yield "aborts"
                continue
            print(json.dumps({"asked": key}), flush=True)
            answer = asked.breakdown(params)
            yield (answer["model"], answer["context"], answer["compute"]) if answer else "refused"
        asked.free()

    def _tried(self, label: str, tensors: Tensors) -> Tensors | None:
        """What llama.cpp loads of a file with these: shapes as it wants them, less what it no longer takes."""
        if label in self.ended:
            return None
        print(json.dumps({"asked": label}), flush=True)
        tensors = dict(tensors)
        for _ in range(MENDS):
            if self._loads(tensors):
                return tensors
            complaint = "".join(self.said)
            wrong = re.search(r"tensor '(.+)' has wrong shape; expected ([\d, ]+), got", complaint)
            if not wrong or wrong[1] in self.base:
                break
            ne = tuple(int(n) for n in wrong[2].split(",") if n.strip())
            tensors[wrong[1]] = variants.here(TensorSpec(wrong[1], ne, GGMLType.F32))
        return self._less_unused(tensors, self._unused())

    def _less_unused(self, tensors: Tensors, unused: int) -> Tensors | None:
        """Without those that llama.cpp does not take: leaving one out leaves one less over."""
        for names in variants.by_stem(n for n in tensors if n in self.base).values():
            for part in (names, names[-1:])[: len(names)]:
                if not 0 < len(part) <= unused:
                    continue
                fewer = {n: t for n, t in tensors.items() if n not in part}
                if self._loads(fewer):
                    return fewer
                left = self._unused()
                if unused - left == len(part):
                    tensors, unused = fewer, left
                    break
        return None

    def _unused(self) -> int:
        """How many tensors llama.cpp said that it has not taken; 0 if it said something else."""
        found = re.search(r"wrong number of tensors; expected (\d+), got (\d+)", "".join(self.said))
        return int(found[1]) - int(found[2]) if found else 0

    def _loads(self, tensors: Tensors) -> bool:
        path = self._write(tensors)
        self.said.clear()
        return load(self.api, path)

    def _write(self, tensors: Tensors) -> Path:
        path = self.folder / "model.gguf"
        path.unlink(missing_ok=True)  # the one before may still be mapped
        variants.write(path, self.name, sorted(tensors.values(), key=variants.file_order))
        return path


def child(task: Mapping[str, Any]) -> None:
    """Print a line before each question to llama.cpp, and one for each variant."""
    llama_env.prepare()
    import llama_cpp as api

    said: list[str] = []

    hear(api, said.append)
    api.llama_backend_init()
    with tempfile.TemporaryDirectory() as folder:
        asker = Asker(api, task, Path(folder), said)
        for label, tensors in asker.variants():
            if label in asker.done:
                continue
            rows = list(asker.rows(label, tensors))
            less = [n for n in asker.base if n not in tensors]
            more = archs.pack(t for n, t in tensors.items() if n not in asker.base)
            print(json.dumps({"asked": label, "label": label, "less": less, "more": more, "rows": rows}), flush=True)


if __name__ == "__main__":
    run_program(main)
