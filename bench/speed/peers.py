"""What do others say? llama-bench measures the same; peers predict, each by its own rule."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ggufphys.errors import GGUFPhysError
from ggufphys.gguf import GGUFFile
from ggufphys.speed.rates import Machine

N_GENERATED: Final = 24


def llama_bench(
    program: Path,
    path: str | os.PathLike[str],
    n_threads: int,
    repacked: bool,
    depths: Sequence[int],
    prompts: Sequence[int],
) -> Mapping[str, float]:
    """Tokens a second by llama-bench, by question: "prefill 512", "decode 1024".

    Raises:
        GGUFPhysError: it failed.
        OSError: it cannot be run.
    """
    base = [os.fspath(program), "-m", os.fspath(path), "-t", str(n_threads), "-r", "3", "-o", "json", "-ngl", "0"]
    base += ["--repack", str(int(repacked))]
    found: dict[str, float] = {}
    runs = [(f"prefill {n}", ["-p", str(n), "-n", "0"]) for n in prompts]
    runs += [(f"decode {d}", ["-p", "0", "-n", str(N_GENERATED), "-d", str(d)]) for d in depths]
    for name, more in runs:
        done = subprocess.run([*base, *more], capture_output=True, text=True, check=False)
        if done.returncode:
            raise GGUFPhysError(f"llama-bench failed: {done.stderr.strip().splitlines()[-1:]}")
        found[name] = float(json.loads(done.stdout)[0]["avg_ts"])
    return found


def roofline(
    gguf: GGUFFile, machine: Machine, depths: Sequence[int], prompts: Sequence[int]
) -> Mapping[str, Mapping[str, float]]:
    """The rule that most tools have: bandwidth over the file's bytes, the same at any depth."""
    nbytes = sum(tensor.nbytes or 0 for tensor in gguf.tensors)
    bandwidth = max(processor.bytes_per_s for processor in machine.processors)
    return {"bandwidth / bytes": {f"decode {depth}": bandwidth / nbytes for depth in depths}}
