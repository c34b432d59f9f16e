"""How much does `inspect` import before it answers? Most of the time that it takes goes there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ggufphys.embedded import MODEL
from ggufphys.speed.rates import Machine, Processor

MOST_MODULES = 142  # of ours, at an ordinary question; a feature that is not asked about belongs behind an import there
# What takes milliseconds and has no part in an ordinary answer.
UNWANTED = frozenset((
    "ast", "ctypes", "dataclasses", "glob", "http", "importlib.resources", "inspect", "json", "linecache",
    "locale", "pathlib", "platform", "shutil", "subprocess", "tempfile", "threading", "tomllib", "urllib.parse",
    "zipfile",
    "ggufphys.commands.diff", "ggufphys.commands.explain", "ggufphys.commands.folder", "ggufphys.commands.log",
    "ggufphys.commands.quantize", "ggufphys.commands.sweep", "ggufphys.gguf.difference", "ggufphys.gguf.known",
    "ggufphys.gguf.remote", "ggufphys.gguf.writer",
    "ggufphys.graph.building.moe", "ggufphys.graph.describing.cost",
    "ggufphys.graph.devices.backends.amx", "ggufphys.graph.devices.backends.vulkan", "ggufphys.graph.devices.divided",
    "ggufphys.graph.devices.fused", "ggufphys.graph.devices.homes", "ggufphys.graph.devices.split",
    "ggufphys.plan.fits", "ggufphys.plan.folder", "ggufphys.plan.quantize",
    "ggufphys.plan.server_fit", "ggufphys.plan.sweep", "ggufphys.report.inspection_json", "ggufphys.speed.costs",
))  # fmt: skip


# What a calibrated machine's answer needs of that, since it says how fast, too.
OF_SPEED = frozenset((
    "json", "ggufphys.graph.describing.cost", "ggufphys.graph.devices.homes", "ggufphys.graph.devices.split",
))  # fmt: skip
CPU = Processor(name="CPU", n_threads=1, streams=((0, 10e9),), flops_per_s=1e12)
CALIBRATED = Machine(name="m", basis="calibrated", source="s", processors=(CPU,))


def imported(cache: Path, *arguments: str) -> list[str]:
    """The modules that a command imports, an ordinary `inspect` by default, with what is kept in this cache."""
    code = (
        "import sys; before = set(sys.modules); from ggufphys.cli import main; code = main(sys.argv[1:])\n"
        "print(code, *(set(sys.modules) - before), sep='\\n', file=sys.stderr)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, *(arguments or ("inspect", str(MODEL), "-c", "1024"))],
        capture_output=True, text=True, check=True, env={**os.environ, "XDG_CACHE_HOME": str(cache)},
    )  # fmt: skip
    code_line, *modules = answer.stderr.split()
    assert code_line == "0"
    return modules


def test_inspect_imports_what_it_needs(tmp_path: Path) -> None:
    """An ordinary `inspect` imports no more of our modules than it did, and none that other questions need.

    On a machine that was calibrated it predicts speed, too; this is one that was not.
    """
    modules = imported(tmp_path)
    ours = sorted(name for name in modules if name.startswith("ggufphys."))

    assert sorted(UNWANTED.intersection(modules)) == []
    assert len(ours) <= MOST_MODULES, ours


def test_a_calibrated_machine_imports_little_more(tmp_path: Path) -> None:
    """What its answer adds, speed, imports nothing else of what takes milliseconds."""
    folder = tmp_path / "ggufphys" / "speed"
    folder.mkdir(parents=True)
    (folder / "calibration.json").write_text(json.dumps(CALIBRATED.to_json()))
    modules = imported(tmp_path)

    assert "ggufphys.speed.predict" in modules
    assert sorted((UNWANTED - OF_SPEED).intersection(modules)) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", str(MODEL), "--memory", "2GiB"),
        ("inspect", str(MODEL), "--on", "m2-air-8gb"),
        ("inspect", str(MODEL), "--diff", str(MODEL)),
        ("tensors", str(MODEL)),
        ("metadata", str(MODEL)),
    ],
    ids=lambda arguments: " ".join(word for word in arguments if word != str(MODEL)),
)
def test_other_answers_import_little_of_the_standard_library(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Of what takes milliseconds they import JSON at most, in which rates are kept."""
    modules = imported(tmp_path, *arguments)
    unwanted = {name for name in UNWANTED if not name.startswith("ggufphys.")} | {"difflib", "random", "statistics"}

    assert sorted(unwanted.intersection(modules) - {"json"}) == []


def test_a_process_ends_at_once_unless_something_is_left_to_do(tmp_path: Path) -> None:
    """An answer is whole in a pipe, and what was registered for the end of the process is done."""
    code = "import atexit, sys; {}from ggufphys.__main__ import main; sys.exit(main())"
    answers = [
        subprocess.run(
            [sys.executable, "-c", code.format(first), "inspect", str(MODEL), "-c", "1024", "--json"],
            capture_output=True, text=True, check=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        ).stdout
        for first in ("", "atexit.register(print, 'the end'); ")
    ]  # fmt: skip

    assert answers[0].endswith("}\n")
    assert answers[1] == f"{answers[0]}the end\n"


def test_no_syntax_trees_are_prepared(tmp_path: Path) -> None:
    """No expression is given to `compile`, which prepares the types of all syntax trees in two milliseconds."""
    code = (
        "import builtins, sys; from ggufphys.cli import main; compiled = builtins.compile\n"
        "def refusing(source, name, mode, *rest, **more):\n"
        "    assert mode != 'eval', source\n"
        "    return compiled(source, name, mode, *rest, **more)\n"
        "builtins.compile = refusing; sys.exit(main(sys.argv[1:]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, "inspect", str(MODEL), "-c", "1024"],
        capture_output=True, check=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )  # fmt: skip


def test_help_imports_flags_alone() -> None:
    """`inspect --help` imports none of what reads files, predicts or prints an answer."""
    code = (
        "import sys\nfrom ggufphys.cli import main\ntry: main(['inspect', '--help'])\n"
        "finally: print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(answer.stderr.split())
    folders = {name.split(".")[1] for name in modules if name.startswith("ggufphys.")}

    assert "--ctx-size" in answer.stdout
    assert folders.isdisjoint({"arch", "graph", "hparams", "loads", "memory", "plan", "report", "speed"})
    assert modules.isdisjoint({"pathlib", "shutil", "ggufphys.context", "ggufphys.gguf"})


def test_the_package_imports_nothing_beforehand() -> None:
    """`import ggufphys` imports none of its modules; a name that it has not is an AttributeError as of any module."""
    code = (
        "import sys, ggufphys; print([n for n in sys.modules if n.startswith('ggufphys.')])\n"
        "print(hasattr(ggufphys, 'nothing'), ggufphys.Params().n_batch)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.split("\n")[:2] == ["[]", "False 2048"]


def test_the_history_of_predictions_is_read_without_statistics() -> None:
    """What a calibrated machine adds to every `inspect` imports none of the modules that `statistics` brings along."""
    code = (
        "import sys, ggufphys.speed.history; print({'statistics', 'fractions', 'decimal', 'random'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout == "set()\n"


def test_the_version_needs_no_parser() -> None:
    """Questions about the program itself are answered without declaring flags."""
    code = (
        "import sys; from ggufphys.cli import main; codes = [main(['--version']), main(['--help']), main([])]\n"
        "print(codes, sorted({'argparse', 'gettext', 'ggufphys.flags.parser'} & set(sys.modules)), file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stderr.splitlines()[-1] == "[0, 0, 2] []"
