"""Is this machine set up to run a model well? Each question with what was found, why it matters, and what mends it.

Linux tells nearly all of it in files; elsewhere, and where a file is not there, the answer is that it is not known.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from ggufphys.frozen import dataclass
from ggufphys.units import format_bytes

Status = Literal["ok", "advice", "problem", "unknown"]
SLOW_BYTES_PER_S: Final = 500 << 20  # a disk below loads 10 GiB in more than 20 s
READ_BYTES: Final = 256 << 20  # what is read to find out
TIMED_BYTES: Final = 8 << 20  # of a shorter file the time is that of opening it and of one seek, not the disk's rate
LARGEST: Final = 3  # holders of memory that are named


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One answer. `why` it matters and the command that mends it are empty where all is well."""

    name: str
    status: Status
    found: str
    why: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is looked at: the file system's root, the environment, what the model is predicted to hold, its file."""

    root: Path = Path("/")
    environ: Mapping[str, str]
    process_bytes: int = 0  # 0: no model is named
    locks: bool = False  # with --mlock
    n_threads: int = 0
    model: Path | None = None
    use_amx: bool = False

    def text(self, path: str) -> str:
        """A file's text, empty where it cannot be read."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def numbers(self, path: str) -> dict[str, int]:
        """Lines of `Name: 123 kB` as bytes."""
        return {k: 1024 * int(v) for k, v in re.findall(r"^(\w+):\s+(\d+) kB$", self.text(path), re.MULTILINE)}


def findings(around: Surroundings) -> tuple[Finding, ...]:
    """All answers, in order."""
    return tuple(finding for check in CHECKS for finding in check(around))


def _memory(around: Surroundings) -> Iterator[Finding]:
    info = around.numbers("proc/meminfo")
    if not info:
        yield Finding(name="free memory", status="unknown", found="there is no /proc/meminfo")
        return
    free, needed = info.get("MemAvailable", 0), around.process_bytes
    found = f"{format_bytes(free)} of {format_bytes(info.get('MemTotal', 0))} are free"
    holders = ", ".join(f"{name} (pid {pid}) {format_bytes(nbytes)}" for nbytes, pid, name in _holders(around))
    if needed > free:
        yield Finding(
            name="free memory", status="problem", found=f"{found}, {format_bytes(needed)} are predicted",
            why=f"the kernel would swap, or end a process; most is held by {holders}",
            mend="ggufphys fit MODEL (what fits), or end what holds it",
        )  # fmt: skip
    else:
        yield Finding(name="free memory", status="ok", found=f"{found}; most is held by {holders}")


def _holders(around: Surroundings) -> list[tuple[int, int, str]]:
    found = []
    for status in (around.root / "proc").glob("[0-9]*/status"):
        text = around.text(str(status.relative_to(around.root)))
        rss = re.search(r"^VmRSS:\s+(\d+) kB$", text, re.MULTILINE)
        name = re.search(r"^Name:\s+(.+)$", text, re.MULTILINE)
        if rss and name:
            found.append((1024 * int(rss[1]), int(status.parent.name), name[1]))
    return sorted(found, reverse=True)[:LARGEST]


def _cgroup(around: Surroundings) -> Iterator[Finding]:
    limit = min(_limits(around), default=0)
    if not limit:
        yield Finding(name="cgroup limit", status="ok", found="none")
    elif around.process_bytes > limit:
        yield Finding(
            name="cgroup limit", status="problem",
            found=f"{format_bytes(limit)}, {format_bytes(around.process_bytes)} are predicted",
            why="the kernel ends the process when it reaches the limit, usually with the first long prompt",
            mend=f"systemctl set-property UNIT MemoryMax={round(around.process_bytes * 1.1)} "
            f"(docker: --memory {round(around.process_bytes * 1.1)})",
        )  # fmt: skip
    else:
        yield Finding(name="cgroup limit", status="ok", found=format_bytes(limit))


def _limits(around: Surroundings) -> Iterator[int]:
    """The limits of the process's own cgroup and of those that it is in."""
    match = re.search(r"^0::(/.*)$", around.text("proc/self/cgroup"), re.MULTILINE)
    own = Path("sys/fs/cgroup", *(match[1].strip("/").split("/") if match else ()))
    for folder in (own, *own.parents):
        text = around.text(str(folder / "memory.max"))
        if text.isdecimal():
            yield int(text)


def _swap(around: Surroundings) -> Iterator[Finding]:
    info = around.numbers("proc/meminfo")
    total, used = info.get("SwapTotal", 0), info.get("SwapTotal", 0) - info.get("SwapFree", 0)
    swappiness = around.text("proc/sys/vm/swappiness")
    if not info:
        yield Finding(name="swap", status="unknown", found="there is no /proc/meminfo")
    elif not total:
        yield Finding(name="swap", status="ok", found="none")
    elif swappiness.isdecimal() and int(swappiness) > 10:
        yield Finding(
            name="swap", status="advice",
            found=f"{format_bytes(used)} of {format_bytes(total)} in use, swappiness {swappiness}",
            why="the cache of a model that is idle for a while is swapped out, and the next answer waits for the disk",
            mend="sudo sysctl vm.swappiness=10 (or MemorySwapMax=0 in the unit)",
        )  # fmt: skip
    else:
        yield Finding(name="swap", status="ok", found=f"{format_bytes(total)}, swappiness {swappiness or 'unknown'}")


def _memlock(around: Surroundings) -> Iterator[Finding]:
    match = re.search(r"^Max locked memory\s+(\S+)", around.text("proc/self/limits"), re.MULTILINE)
    if match is None:
        yield Finding(name="locked memory", status="unknown", found="there is no /proc/self/limits")
        return
    limit = -1 if match[1] == "unlimited" else int(match[1])
    found = "unlimited" if limit < 0 else format_bytes(limit)
    if 0 <= limit < around.process_bytes and around.locks:
        yield Finding(
            name="locked memory", status="problem", found=found,
            why="--mlock cannot lock the weights: llama.cpp warns and goes on without",
            mend="ulimit -l unlimited (LimitMEMLOCK=infinity in the unit)",
        )  # fmt: skip
    else:
        yield Finding(
            name="locked memory", status="ok", found=f"{found}{'' if around.locks else ', not needed without --mlock'}"
        )


def _huge_pages(around: Surroundings) -> Iterator[Finding]:
    text = around.text("sys/kernel/mm/transparent_hugepage/enabled")
    match = re.search(r"\[(\w+)\]", text)
    if match is None:
        yield Finding(name="huge pages", status="unknown", found="the kernel does not tell")
    elif match[1] == "never":
        yield Finding(
            name="huge pages", status="advice", found="never",
            why="with 4 KiB pages large caches and repacked weights miss the TLB more often",
            mend="echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )  # fmt: skip
    else:
        yield Finding(name="huge pages", status="ok", found=match[1])


def _governor(around: Surroundings) -> Iterator[Finding]:
    paths = sorted((around.root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    found = {around.text(str(path.relative_to(around.root))) for path in paths}
    if not found:
        yield Finding(name="governor", status="unknown", found="no cpufreq: a virtual machine, or not Linux")
    elif found & {"powersave", "conservative"}:
        yield Finding(
            name="governor", status="advice", found=", ".join(sorted(found)),
            why="the first steps of an answer run at a low frequency",
            mend="sudo cpupower frequency-set -g performance",
        )  # fmt: skip
    else:
        yield Finding(name="governor", status="ok", found=", ".join(sorted(found)))


def _threads(around: Surroundings) -> Iterator[Finding]:
    n_cores, n_usable = _cores(around)
    if not n_cores:
        yield Finding(name="threads", status="unknown", found="the processor's topology is not told")
        return
    most = min(n_cores, n_usable)
    asked = around.n_threads
    found = f"{n_cores} physical cores, {n_usable:g} processors may be used, {asked or round(most)} threads"
    if asked > most:
        yield Finding(
            name="threads", status="problem", found=found,
            why="threads wait for each other hundreds of times a token: one more than there are cores makes all wait",
            mend=f"-t {max(1, int(most))}",
        )  # fmt: skip
    else:
        yield Finding(name="threads", status="ok", found=found)


def _cores(around: Surroundings) -> tuple[int, float]:
    """Physical cores, and processors that this process may use: by affinity and the cgroup's quota."""
    paths = (around.root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list")
    n_cores = len({around.text(str(path.relative_to(around.root))) for path in paths})
    n_usable = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    quota = around.text("sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdecimal():
        n_usable = min(n_usable, int(quota[0]) / int(quota[1]))
    return n_cores, n_usable


def _amx(around: Surroundings) -> Iterator[Finding]:
    flags = re.search(r"^flags\s*:(.*)$", around.text("proc/cpuinfo"), re.MULTILINE)
    has = flags is not None and {"amx_tile", "amx_int8"} <= set(flags[1].split())
    if has:
        yield Finding(
            name="AMX", status="advice", found="the processor has it",
            why="a llama.cpp built for it natively can die with its first decode (its issue 20824); serve tries it in "
            "a child first, and goes on without repacked weights then, which is slower",
            mend="CFLAGS='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16' CXXFLAGS='-mno-amx-tile -mno-amx-int8 "
            "-mno-amx-bf16' pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python",
        )  # fmt: skip
    else:
        yield Finding(name="AMX", status="ok", found="the processor has none")


def _openmp(around: Surroundings) -> Iterator[Finding]:
    policy, spin = (around.environ.get(name, "") for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"))
    if policy.lower() == "active" or spin.lower() in ("infinity", "infinite"):
        yield Finding(
            name="OpenMP", status="advice", found=f"OMP_WAIT_POLICY={policy} GOMP_SPINCOUNT={spin}",
            why="threads that spin for ever take the cores from everything else, HTTP included: 3 to 100 times slower "
            "on a busy machine",
            mend="unset OMP_WAIT_POLICY GOMP_SPINCOUNT (serve and measure switch by measurement)",
        )  # fmt: skip
    else:
        yield Finding(name="OpenMP", status="ok", found=f"OMP_WAIT_POLICY={policy}" if policy else "left to serve")


def _disk(around: Surroundings) -> Iterator[Finding]:
    if around.model is None:
        yield Finding(name="disk", status="unknown", found="no MODEL is named, whose file could be read")
        return
    size = around.model.stat().st_size
    if size < TIMED_BYTES:
        found = f"a file of {format_bytes(size)} is too short to time a disk by"
        yield Finding(name="disk", status="unknown", found=found)
        return
    rate = read_rate(around.model)
    if rate is None:
        yield Finding(name="disk", status="unknown", found="the page cache cannot be passed by here")
        return
    found = f"{format_bytes(round(rate))} a second, so {size / rate:.1f} s for the file"
    if rate < SLOW_BYTES_PER_S:
        yield Finding(
            name="disk", status="advice", found=found,
            why="every start, and every page that memory has no room for, waits for it",
            mend="put the file on a local SSD",
        )  # fmt: skip
    else:
        yield Finding(name="disk", status="ok", found=found)


def read_rate(path: Path) -> float | None:
    """Bytes a second with which the file's beginning is read past the page cache; None where that can't be done."""
    if not hasattr(os, "posix_fadvise"):
        return None
    file = os.open(path, os.O_RDONLY)
    try:
        nbytes = min(os.fstat(file).st_size, READ_BYTES)
        os.posix_fadvise(file, 0, nbytes, os.POSIX_FADV_DONTNEED)
        began, left = time.perf_counter(), nbytes
        while left > 0 and (read := len(os.read(file, 4 << 20))):
            left -= read
        return nbytes / max(time.perf_counter() - began, 1e-9)
    finally:
        os.close(file)


def _gpu(around: Surroundings) -> Iterator[Finding]:
    version = re.search(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", around.text("proc/driver/nvidia/version"))
    cards = sorted(path.name for path in (around.root / "proc/driver/nvidia/gpus").glob("*"))
    pci = [
        around.text(str(path.relative_to(around.root)))
        for path in (around.root / "sys/bus/pci/devices").glob("*/vendor")
        if around.text(str((path.parent / "class").relative_to(around.root))).startswith("0x03")
    ]
    if version:
        yield Finding(name="GPU driver", status="ok", found=f"NVIDIA {version[1]}, {len(cards)} GPUs")
    elif "0x10de" in pci:
        yield Finding(
            name="GPU driver", status="problem", found="an NVIDIA GPU, and no driver is loaded",
            why="llama.cpp will compute on the processor", mend="sudo apt install nvidia-driver, then restart",
        )  # fmt: skip
    else:
        yield Finding(name="GPU driver", status="ok", found="no NVIDIA GPU")


CHECKS: Final[Sequence[Callable[[Surroundings], Iterator[Finding]]]] = (
    _memory, _cgroup, _swap, _memlock, _huge_pages, _governor, _threads, _amx, _openmp, _disk, _gpu,
)  # fmt: skip
