"""What does mtmd itself count for mmproj files? Tensors' bytes, and what the encoder's compute buffer reserves.

Run as a child, `python -m bench.clip.measure [--weights-only] FILE...`, it prints one JSON object a file: llama.cpp
aborts on files that it finds odd. The counts come as a std::map by value, read here by libstdc++'s layout on x86-64.

Source: llama.cpp 0c1e570 tools/mtmd/mtmd.h, mtmd_get_memory_usage.
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ggufphys.machine.children import describe, environment, module_command


def measure(paths: Sequence[Path], *, weights_only: bool = False) -> list[dict[str, int]]:
    """`weights` (without padding) and `compute` of each file, on the CPU.

    Raises:
        RuntimeError: llama.cpp ended the child; the message is what it said last.
    """
    flags = ["--weights-only"] if weights_only else []
    child = subprocess.run(
        module_command("bench.clip.measure", *flags, *map(str, paths)),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        env=environment(),
    )
    if child.returncode:
        raise RuntimeError(f"mtmd ended with {describe(child.returncode)}: {child.stderr[-2000:]}")
    return [json.loads(line) for line in child.stdout.splitlines()]


def _sizes(path: str, weights_only: bool) -> dict[str, int]:
    from llama_cpp import mtmd_cpp

    get = mtmd_cpp._libmtmd._Z21mtmd_get_memory_usagePKc19mtmd_context_params
    get.restype, get.argtypes = None, [ctypes.c_void_p, ctypes.c_char_p, mtmd_cpp.mtmd_context_params]
    sums = []
    for warmup in (False, not weights_only):
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu, params.warmup = False, warmup
        storage = (ctypes.c_uint64 * 8)()
        get(ctypes.addressof(storage), os.fsencode(path), params)
        if storage[5] != 1:  # std::map's node count: one device
            raise SystemExit(f"{path}: mtmd refuses it, or puts it on {storage[5]} devices")
        node = (ctypes.c_uint64 * 6).from_address(storage[2])  # the root: colour, parent, left, right, device, bytes
        sums.append(node[5])
    return {"weights": sums[0], "compute": sums[1] - sums[0]}


def main(arguments: Sequence[str]) -> None:
    """Print the sizes of each file."""
    from ggufphys.machine import llama_env
    from ggufphys.machine.llama_log import hear

    llama_env.prepare()
    import llama_cpp

    hear(llama_cpp, sys.stderr.write)
    weights_only = "--weights-only" in arguments
    for path in arguments:
        if path != "--weights-only":
            print(json.dumps(_sizes(path, weights_only)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
