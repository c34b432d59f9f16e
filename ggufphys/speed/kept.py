"""Where is this machine's calibration kept? `$XDG_CACHE_HOME/ggufphys/speed`, or the same below `~/.cache`."""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ggufphys.frozen import replace
from ggufphys.paths import cache_home, is_file

if TYPE_CHECKING:
    from pathlib import Path

    from ggufphys.speed.rates import Machine

NAME: Final = "calibration.json"


def is_calibrated() -> bool:
    """Is a calibration kept?"""
    place = folder()
    return bool(place) and is_file(f"{place}/{NAME}")


def folder() -> str:
    """The folder; empty where nobody is at home."""
    caches = cache_home()
    return f"{caches}/ggufphys/speed" if caches else ""


def calibration_path() -> "Path | None":
    """The file, whether it is there or not."""
    from pathlib import Path  # for those who write it

    place = folder()
    return Path(place, NAME) if place else None


def kept_machine() -> "Machine | None":
    """The machine that was calibrated here; None when none was.

    Raises:
        CalibrationError: what is kept cannot be used.
    """
    if not is_calibrated():
        return None
    from ggufphys.speed.rates import read_machine  # only when there is something to read

    machine = read_machine(f"{folder()}/{NAME}")
    notes = tuple(note for tell in (foreign, otherwise_built, otherwise_waiting) if (note := tell(machine.identity)))
    return replace(machine, notes=(*machine.notes, *notes)) if notes else machine


def foreign(identity: Mapping[str, Any]) -> str:
    """What to say where a calibration was made on another machine than this: homes are shared, and CPUs exchanged."""
    here = {"cpu": _cpu_name(), "n_cpus": os.cpu_count() or 1}
    there = {name: identity.get(name) for name in here}
    if all(not here[name] or not there[name] or here[name] == there[name] for name in here):
        return ""
    return (
        f"rates are those of another machine, {there['cpu'] or 'one'} with {there['n_cpus']} CPUs, and this is "
        f"{here['cpu']} with {here['n_cpus']}: run `ggufphys bench calibrate` here"
    )


def otherwise_built(identity: Mapping[str, Any]) -> str:
    """What to say where another llama-cpp-python was calibrated than is installed now: kernels change."""
    there, here = identity.get("llama_cpp"), _installed_version()
    if not there or not here or there == here:
        return ""
    return (
        f"rates are those of llama-cpp-python {there}, and {here} is installed: run `ggufphys bench calibrate` if its "
        "kernels are faster or slower"
    )


def otherwise_waiting(identity: Mapping[str, Any]) -> str:
    """What to say where OpenMP's threads are told to wait for each other in another way than when it was calibrated."""
    from ggufphys.machine.llama_env import SPINNING, given  # only when something is kept

    there = (identity.get("waiting") or {}).get("OMP_WAIT_POLICY")
    here = given().get("OMP_WAIT_POLICY", SPINNING["OMP_WAIT_POLICY"])
    if not there or there.lower() == here.lower() or max(identity.get("threads") or [1]) == 1:
        return ""
    return (
        f"OMP_WAIT_POLICY was {there} while this machine was calibrated and is {here} here: several threads will take "
        "longer or shorter; run `ggufphys bench calibrate` here"
    )


def _installed_version() -> str:
    """llama-cpp-python's, from the name of the folder that pip describes it in; empty where there is none.

    `importlib.metadata` would say the same and costs a start more than all of this module.
    """
    for place in sys.path:
        try:
            names = os.listdir(place or ".")  # noqa: PTH208  # at start-up
        except OSError:  # a zip file, or a folder that is gone
            continue
        for name in names:
            if name.startswith("llama_cpp_python-") and name.endswith(".dist-info"):
                return name.removeprefix("llama_cpp_python-").removesuffix(".dist-info")
    return ""


def _cpu_name() -> str:
    """As Linux calls it, from the first lines of what it says; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", "rb") as file:  # noqa: PTH123  # at start-up
            lines = file.read(2048).decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def keep(text: str, name: str = NAME) -> None:
    """Write a file there, whole or not at all; nothing where there is no place for it.

    Raises:
        OutputError: it cannot be written.
    """
    from pathlib import Path  # only when something is kept

    from ggufphys.machine.output import whole_file

    place = folder()
    if place:
        with whole_file(Path(place, name), makes_folder=True) as partial:
            partial.write_text(text, encoding="utf-8")
