"""`ggufphys doctor`: what it makes of a machine's files, which are made up here."""

import json
from pathlib import Path

import pytest

from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.machine.findings import Finding, Surroundings, findings, read_rate

GOOD = {
    "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB",
    "proc/7/status": "Name:\tfirefox\nVmRSS:\t 900000 kB",
    "proc/self/limits": "Max locked memory         unlimited            unlimited            bytes",
    "proc/cpuinfo": "flags\t\t: fpu avx2",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0",
}  # fmt: skip


def found(tmp_path: Path, changed: dict[str, str], **more: object) -> dict[str, Finding]:
    for name, text in (GOOD | changed).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    around = Surroundings(**{"root": tmp_path, "environ": {}, **more})  # type: ignore[arg-type]
    return {finding.name: finding for finding in findings(around)}


def test_good_machine(tmp_path: Path) -> None:
    """Where all is well nothing is to be mended; the largest holder of memory is named."""
    all_found = found(tmp_path, {}, process_bytes=1 << 30)

    assert {name for name, finding in all_found.items() if finding.status not in ("ok", "unknown")} == set()
    assert all_found["disk"].status == "unknown"
    assert "firefox (pid 7)" in all_found["free memory"].found
    assert all(not finding.mend for finding in all_found.values())


@pytest.mark.parametrize(
    ("name", "status", "changed", "more", "mend"),
    [
        ("free memory", "problem", {}, {"process_bytes": 13 << 30}, "ggufphys fit"),
        ("swap", "advice", {"proc/meminfo": "MemTotal: 9 kB\nSwapTotal: 9 kB\nSwapFree: 1 kB",
                            "proc/sys/vm/swappiness": "60"}, {}, "vm.swappiness=10"),
        ("cgroup limit", "problem", {"proc/self/cgroup": "0::/system.slice/a.service",
                                     "sys/fs/cgroup/system.slice/memory.max": "1073741824",
                                     "sys/fs/cgroup/system.slice/a.service/memory.max": "max"},
         {"process_bytes": 2 << 30}, "MemoryMax=2362232013"),
        ("locked memory", "problem", {"proc/self/limits": "Max locked memory   65536   65536   bytes"},
         {"process_bytes": 1 << 30, "locks": True}, "LimitMEMLOCK"),
        ("huge pages", "advice", {"sys/kernel/mm/transparent_hugepage/enabled": "always [never]"}, {}, "madvise"),
        ("governor", "advice", {"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"}, {}, "-g perf"),
        ("threads", "problem", {}, {"n_threads": 2}, "-t 1"),
        ("AMX", "advice", {"proc/cpuinfo": "flags\t: avx2 amx_tile amx_int8"}, {}, "-mno-amx-tile"),
        ("OpenMP", "advice", {}, {"environ": {"OMP_WAIT_POLICY": "ACTIVE"}}, "unset"),
        ("GPU driver", "problem", {"sys/bus/pci/devices/0/vendor": "0x10de", "sys/bus/pci/devices/0/class": "0x030200"},
         {}, "nvidia-driver"),
    ],
)  # fmt: skip
def test_what_is_to_be_mended(
    tmp_path: Path, name: str, status: str, changed: dict[str, str], more: dict[str, object], mend: str
) -> None:
    """Each fault is found, with why it matters and the command that mends it; the others stay as they are."""
    all_found = found(tmp_path, changed, **more)

    assert all_found[name].status == status
    assert all_found[name].why
    assert mend in all_found[name].mend
    wrong = [finding.name for finding in all_found.values() if finding.status in ("advice", "problem")]
    assert wrong == [name]


def test_nothing_is_known(tmp_path: Path) -> None:
    """Without any of the files, as on other systems, answers are that it is not known; nothing fails."""
    around = Surroundings(root=tmp_path, environ={})

    assert not [finding for finding in findings(around) if finding.status in ("advice", "problem")]


def test_a_short_file_tells_nothing_of_a_disk(tmp_path: Path) -> None:
    """A file of some bytes is read in the time of opening it: no rate, and no advice to buy another disk."""
    short = tmp_path / "short.gguf"
    short.write_bytes(b"GGUF")

    disk = found(tmp_path / "machine", {}, model=short)["disk"]

    assert (disk.status, disk.mend) == ("unknown", "")
    assert "4 B" in disk.found


def test_read_rate() -> None:
    """The rate of a file's reading is positive, or not known where the page cache cannot be passed by."""
    rate = read_rate(MODEL)

    assert rate is None or rate > 1 << 20


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON: every finding, and the predicted memory of the model; threads beyond the cores are exit code 1."""
    assert main(["doctor", str(MODEL), "-c", "256", "-t", "500", "--json"]) in (0, 1)
    document = json.loads(capsys.readouterr().out)

    assert document["process_bytes"] > MODEL.stat().st_size
    assert len(document["findings"]) == 11
    main(["doctor"])
    assert "free memory: " in capsys.readouterr().out
