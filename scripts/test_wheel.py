"""Build the wheel, install it into a clean environment, and test it there, with nothing of the checkout on the path.

usage: python -m scripts.test_wheel [--extra serve] [--lowest] [--keep FOLDER] [-- TESTS...]

The tests are a copy in a temporary folder: tests/wheel, which looks at what is installed, and those of the rest that
the base install can run (TESTS, if named, instead). With `--lowest` every dependency has the lowest version that
pyproject.toml allows, so that the lower bounds are no mere claim. It needs an index, or pip's cache.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.running.program import run_program

ROOT: Final = Path(__file__).resolve().parent.parent
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOLS: Final = ("pytest", "pytest-xdist", "hypothesis", "mypy==2.4.1")
TESTS: Final = (
    "tests/wheel", "tests/ggufphys/test_params.py", "tests/ggufphys/stores", "tests/ggufphys/gguf/test_values.py",
    "tests/ggufphys/commands/test_folder.py",
)  # fmt: skip


def main() -> int:
    """The exit code of pytest, or that of the step that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", action="append", default=[], metavar="NAME", help="install this extra, too")
    parser.add_argument("--lowest", action="store_true", help="every dependency at its lowest allowed version")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="work in this folder, and leave it behind")
    parser.add_argument("tests", nargs="*", metavar="TESTS", help="what pytest is given (default: see above)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        python = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        step("build", sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
        (wheel,) = folder.glob("ggufphys-*.whl")
        step("environment", sys.executable, "-m", "venv", folder / "env")
        extras = f"[{','.join(args.extra)}]" if args.extra else ""
        lowest = lowest_versions(args.extra) if args.lowest else []
        pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
        step("install", *pip, f"{wheel}{extras}", *lowest, *TOOLS)
        shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)  # pytest's settings
        for name in ("README.md", "CHANGELOG.md"):
            shutil.copy(ROOT / name, folder)
        tests = args.tests or TESTS
        return step("tests", python, "-m", "pytest", "-q", "-n2", "-m", "not slow", *tests, cwd=folder, check=False)


def lowest_versions(extras: Sequence[str]) -> list[str]:
    """`name==version` for each `name>=version` of the base install and of some extras."""
    listed = [*PROJECT["project"]["dependencies"]]
    for extra in extras:
        listed += PROJECT["project"]["optional-dependencies"][extra]
    return [re.sub(r">=(\S+)", r"==\1", requirement) for requirement in listed if ">=" in requirement]


def step(name: str, *command: str | os.PathLike[str], cwd: Path | None = None, check: bool = True) -> int:
    """Run a command without the checkout's environment; ends the program when it fails and is checked."""
    began = time.monotonic()
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    code = subprocess.run([os.fspath(part) for part in command], cwd=cwd, env=environment, check=False).returncode
    print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    if code and check:
        sys.exit(code)
    return code


if __name__ == "__main__":
    run_program(main)
