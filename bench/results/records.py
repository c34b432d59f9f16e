"""One run of a command and what it printed: with the machine, the build of llama.cpp, the commit and the time.

A file of results is JSONL, a record a line, schema 1 (docs/report.md names the fields). Records are added, never
changed; of several of one command on one machine the last counts.
"""

import json
import os
import platform
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from bench.calibrate.identity import cpu_name
from ggufphys.builds.asked import installed_build
from ggufphys.machine import host
from ggufphys.machine.children import module_command
from ggufphys.units import parse_json, read_text

SCHEMA_VERSION: Final = 1
HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]

# What --json of each command is called here; others are kept under their own name.
KINDS: Final[Mapping[str, str]] = {
    "measure": "measure", "inspect": "inspect", "bench load": "load", "bench quality": "quality",
    "bench hypotheses": "hypotheses", "bench calibrate": "calibrate", "bench speed": "speed",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run of a command, and what it printed.

    Attributes:
        kind: what `result` is: measure, load, quality, hypotheses, calibrate, speed, inspect, or a module's name.
        command: as it is typed, paths without their folders.
        recorded: UTC, to the second.
        machine: cpu, n_cpus, memory_bytes, features, system.
        build: llama_cpp_python's version and llama.cpp's build number; those of a server, too, where it said so.
        commit: of this project; with `+` where files differed from it, empty outside a checkout.
        load: the machine's load average when it began, None where there is none.
        exit: the command's exit code.
        result: the document that it printed.
        mark: what a report about several machines calls this one; no part of the file.
    """

    schema_version: int
    kind: str
    command: str
    recorded: str
    machine: Mapping[str, Any]
    build: Mapping[str, Any]
    commit: str
    load: float | None
    exit: int
    result: Any
    mark: str = ""

    def to_json(self) -> str:
        """The record as a line of JSON."""
        kept = {name: value for name, value in asdict(self).items() if name in FIELDS}
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))

    @property
    def machine_name(self) -> str:
        """CPU and number of cores."""
        n_cpus = self.machine["n_cpus"]
        return f"{self.machine['cpu']}, {n_cpus} CPU{'s' * (n_cpus != 1)}"


FIELDS: Final = tuple(field.name for field in fields(Record) if field.name != "mark")
"""What a line of a file has."""


def read_records(paths: Iterable[Path]) -> list[Record]:
    """The records of files, and of all *.jsonl in folders, oldest first.

    Raises:
        ValueError: a line is none, or of another schema; the message says which.
        OSError: no such file, or a folder that cannot be looked into.
    """
    found = []
    for path in paths:
        for file in _in_folder(path) if path.is_dir() else [path]:
            found += list(_lines(file))
    return sorted(found, key=lambda record: record.recorded)


def _in_folder(folder: Path) -> list[Path]:
    def failed(error: OSError) -> None:
        raise error

    return sorted(
        Path(place, name)
        for place, _, names in os.walk(folder, onerror=failed)
        for name in names
        if name.endswith(".jsonl")
    )


def newest(records: Iterable[Record]) -> list[Record]:
    """Of records with one command on one machine the last, in the order of the first."""
    found: dict[tuple[str, str], Record] = {}
    for record in records:
        found[record.machine_name, record.command] = record
    return list(found.values())


def _lines(path: Path) -> Iterator[Record]:
    for i, line in enumerate(read_text(path).split("\n"), start=1):  # other line ends may stand in texts
        if not line.strip():
            continue
        try:
            found = parse_json(line)
            version = found["schema_version"]
            if version != SCHEMA_VERSION:
                raise ValueError(f"schema {version}, expected {SCHEMA_VERSION}")
            record = Record(**{name: found[name] for name in FIELDS})
            record.machine_name  # noqa: B018  # without it nothing can be told apart
            yield record
        except KeyError as error:
            raise ValueError(
                f"{path}, line {i}: no record of `python -m bench.results.run`: no field {error}"
            ) from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {i}: no record of `python -m bench.results.run` ({error})") from None


def run_recorded(words: Sequence[str]) -> Record:
    """Run `ggufphys WORDS --json` and keep what it printed.

    Raises:
        ValueError: it printed no JSON; the message has the end of what it said.
    """
    words = [word for word in words if word != "--json"]
    load, recorded = _load(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    done = subprocess.run(
        module_command("ggufphys", *words, "--json"),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    try:
        result = parse_json(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).strip()[-400:]
        raise ValueError(f"ggufphys {' '.join(words)}: exit code {done.returncode} and no JSON: {said}") from None
    return Record(
        schema_version=SCHEMA_VERSION, kind=kind_of(words), recorded=recorded, machine=machine(), build=build(),
        command=shlex.join(["ggufphys", *map(_without_folder, words)]), commit=commit(), load=load,
        exit=done.returncode, result=_without_folders(result),
    )  # fmt: skip


def kind_of(words: Sequence[str]) -> str:
    """What the record of a command is."""
    name = next((name for name in KINDS if list(words[: len(name.split())]) == name.split()), words[0])
    return KINDS.get(name, name)


def machine() -> dict[str, Any]:
    """What this machine is."""
    return {
        "cpu": cpu_name(), "n_cpus": os.cpu_count() or 1, "memory_bytes": host.main_memory().total_bytes,
        "features": sorted(host.cpu_features()), "system": f"{platform.system()} {platform.machine()}",
    }  # fmt: skip


def build() -> dict[str, Any]:
    """Which llama.cpp is installed."""
    try:
        version = metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        return {"llama_cpp_python": None, "llama_build": None}
    return {"llama_cpp_python": version, "llama_build": installed_build()}


def commit() -> str:
    """The checkout's commit."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=10"]
    try:
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _without_folder(word: str) -> str:
    """A file's name where a word is a path: where it lay says nothing to others."""
    return word.rsplit("/", 1)[-1] if word.startswith(("/", "~/", "./", "../")) else word


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(found) for key, found in value.items()}
    if isinstance(value, list):
        return [_without_folders(found) for found in value]
    return _without_folder(value) if isinstance(value, str) and value.startswith(str(Path.home().anchor)) else value
