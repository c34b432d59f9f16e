"""Record what a build of llama.cpp says about the small models of `tests/data`, into `tests/data/builds`.

usage: python -m scripts.record_build N [--c-library FOLDER] [--wheel FOLDER]

N is a build that PyPI has a wheel of, llama-cpp-py-sync 0.N (docs/builds.md). The wheels want glibc 2.38 or newer;
where the system's is older, FOLDER is one with the libraries of a newer Linux unpacked (libc6, libstdc++6, libgcc-s1,
libgomp1). Only rows that differ from the neighbouring record are kept. Needs cffi, and half a minute.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from bench.running.program import existing_folder, run_program
from ggufphys.arch import RULES
from ggufphys.params import Params
from tests import archs, builds

PACKAGE = "llama-cpp-py-sync"
ORACLE = Path(__file__).with_name("build_oracle.py")


def main() -> int:
    """Fetch, ask, write; then say what moved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=int, metavar="N", help="a build that PyPI has a wheel of")
    add_c_library(parser)
    parser.add_argument("--wheel", type=existing_folder, metavar="FOLDER", help="the wheel, unpacked already")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = args.wheel or fetch(args.build, Path(folder))
        record(args.build, wheel, args.c_library)
    print(f"{builds.path_of(args.build)}: {builds.path_of(args.build).stat().st_size:,} bytes")
    print("now run python -m scripts.list_builds, and set LATEST in ggufphys/builds/moves.py if it is the newest")
    return 0


def add_c_library(parser: argparse.ArgumentParser) -> None:
    """Add --c-library."""
    parser.add_argument(
        "--c-library", type=existing_folder, metavar="FOLDER",
        help="libraries of a newer Linux, with its ld-linux-x86-64.so.2",
    )  # fmt: skip


def fetch(build: int, folder: Path) -> Path:
    """The wheel of a build, unpacked into the folder."""
    subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--only-binary", ":all:", "--platform", "manylinux2014_x86_64", "--dest", folder, f"{PACKAGE}==0.{build}",
        ],
        check=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "wheel")
    return folder / "wheel"


def record(build: int, wheel: Path, c_library: Path | None) -> None:
    """Write the record of a build whose wheel is unpacked there."""
    builds.write(build, commit_of(wheel), date.today().isoformat(), ask(wheel, c_library), unknown_to(wheel))


def unknown_to(wheel: Path) -> list[str]:
    """Architectures whose names are not among the texts in the library.

    A name may be the end of another's text, which is kept once: such a name counts as known.
    """
    library = (wheel / "llama_cpp_py_sync" / "libllama.so").read_bytes()
    return [name for name in RULES if name.encode() + b"\0" not in library]


def commit_of(wheel: Path) -> str:
    """llama.cpp's commit, as the wheel says it."""
    lines = (wheel / "llama_cpp_py_sync" / "_version.py").read_text().splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("__llama_cpp_commit__"))


def ask(wheel: Path, c_library: Path | None) -> builds.Rows:
    """What the build says of each configuration of each small model."""
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for number, model in enumerate(archs.records()):
            files[model] = Path(folder, f"{number}.gguf")
            archs.write(files[model], model, archs.records()[model].tensors)
        return ask_about(files, wheel, c_library)


def ask_about(
    files: Mapping[str, Path], wheel: Path, c_library: Path | None, ways: Mapping[str, Sequence[Params]] | None = None
) -> builds.Rows:
    """What the build says of these files, by their names, in `ways` of their own or in each recorded configuration."""
    if not (wheel / "llama_cpp_py_sync").is_dir():
        raise FileNotFoundError(f"{wheel}: no unpacked wheel of {PACKAGE}, which has a folder llama_cpp_py_sync")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = {n: [asdict(params) for params in (ways[n] if ways else archs.GRID)] for n in files}
        jobs = [{"name": n, "path": os.fspath(path), "configurations": asked[n]} for n, path in files.items()]
        (folder / "jobs.json").write_text(json.dumps(jobs))
        arguments = [ORACLE, wheel, folder / "jobs.json", folder / "out.jsonl"]
        subprocess.run(
            [*_python(c_library, wheel), *arguments], check=True, env={**os.environ, "GGML_NO_BACKTRACE": "1"}
        )
        answers: dict[str, list[builds.Row]] = {}
        for line in (folder / "out.jsonl").read_text().splitlines():
            answer = json.loads(line)
            answers.setdefault(answer["name"], []).append(_row(answer))
    return {model: tuple(rows) for model, rows in answers.items()}


def _python(c_library: Path | None, wheel: Path) -> list[str]:
    """How Python is started: through another C library's loader, if one is given."""
    own = wheel / "llama_cpp_py_sync"
    python = os.path.realpath(sys.executable)
    if c_library is None:
        return ["env", f"LD_LIBRARY_PATH={own}", f"PYTHONPATH={os.pathsep.join(sys.path)}", python]
    loader = next(c_library.rglob("ld-linux-x86-64.so.2"), None)
    if loader is None:
        raise FileNotFoundError(f"{c_library}: no ld-linux-x86-64.so.2 in it; unpack libc6 and the others there")
    folders = {path.parent for path in c_library.rglob("*.so.*") if path.is_file()}
    own_python = sysconfig.get_config_var("LIBDIR") or ""
    search = os.pathsep.join(str(path) for path in (*sorted(folders), own_python, own))
    return ["env", f"PYTHONPATH={os.pathsep.join(sys.path)}", os.fspath(loader), "--library-path", search, python]


def _row(answer: dict[str, Any]) -> builds.Row:
    if "died" in answer:
        return "aborts"
    if "unknown" in answer:
        return "unknown"
    return "refused" if "error" in answer else (answer["model"], answer["context"], answer["compute"])


if __name__ == "__main__":
    run_program(main)
