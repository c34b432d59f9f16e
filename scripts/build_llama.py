"""Install the pinned llama-cpp-python, built from source with the RPC backend and, where the CPU has it, without AMX.

usage: build_llama.py [--print-flags]        run by the interpreter of the environment to install into

Wheels built on a CPU with AMX crash on their first decode (llama.cpp issue 20824), so its instructions are switched off
wherever the compiler knows them; on other CPUs these flags change nothing. pip caches the wheels it builds whatever
their flags were, so the build goes around pip's cache and keeps its wheel in one of its own, by flags and machine.
"""

import argparse
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "llama-cpp-python"
NO_AMX = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")
STAMP = Path(sys.prefix) / ".llama-build-key"


def pinned_version() -> str:
    """The version that pyproject.toml pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirement = next(r for r in project["optional-dependencies"]["all"] if r.startswith(f"{PACKAGE}=="))
    return str(requirement).removeprefix(f"{PACKAGE}==")


def compiler() -> str:
    """The C compiler the build will use."""
    return os.environ.get("CC", "cc")


def amx_flags() -> tuple[str, ...]:
    """The flags that switch AMX off, where the CPU is x86-64 and the compiler knows them."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.c"
        source.write_text("int main(void) { return 0; }\n")
        command = [*shlex.split(compiler()), *NO_AMX, "-c", str(source), "-o", str(Path(folder) / "empty.o")]
        try:
            accepted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            raise SystemExit(
                f"no C compiler: {compiler()!r} cannot be run. Install one (Debian: apt install build-essential), "
                "or set CC and CXX"
            ) from None
    return NO_AMX if accepted else ()


def build_environment() -> dict[str, str]:
    """The variables the build reads: the user's own flags, and ours behind them."""
    flags = " ".join(amx_flags())
    return {
        "CMAKE_ARGS": f"{os.environ.get('CMAKE_ARGS', '')} -DGGML_RPC=ON".strip(),
        "CFLAGS": f"{os.environ.get('CFLAGS', '')} {flags}".strip(),
        "CXXFLAGS": f"{os.environ.get('CXXFLAGS', '')} {flags}".strip(),
    }


def cpu_name() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def build_key(version: str, environment: dict[str, str]) -> str:
    """Names a wheel by all that decides its contents."""
    machine = [platform.machine(), *platform.libc_ver(), cpu_name()]
    parts = [version, repr(sorted(environment.items())), *machine, compiler(), sys.version]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def installed_version() -> str | None:
    """The version in this environment, or None."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> int:
    """Build unless the wheel is cached, install unless it is installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print-flags", action="store_true", help="say which flags it would be built with, and end")
    args = parser.parse_args()
    version, environment = pinned_version(), build_environment()
    key = build_key(version, environment)
    print(f"{PACKAGE} {version}: " + " ".join(f"{k}='{v}'" for k, v in environment.items()), flush=True)
    if args.print_flags:
        return 0
    if installed_version() == version and STAMP.exists() and STAMP.read_text() == key:
        print("already installed", flush=True)
        return 0
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = (base if base.is_absolute() else Path.home() / ".cache") / "ggufphys" / "wheels" / key
    wheels = list(cache.glob("*.whl"))
    if not wheels:
        print("building, about four minutes on two cores", flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir"]
        command += ["--no-binary", PACKAGE, "--wheel-dir", str(cache), f"{PACKAGE}=={version}"]
        code = subprocess.run(command, env={**os.environ, **environment}, check=False).returncode
        if code:
            print(f"the build failed (pip exited with {code}): its output above says why", file=sys.stderr)
            return 1
        wheels = list(cache.glob("*.whl"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", str(wheels[0])]
    code = subprocess.run(install, check=False).returncode
    if code == 0:
        STAMP.write_text(key)
    return code


if __name__ == "__main__":
    sys.exit(main())
