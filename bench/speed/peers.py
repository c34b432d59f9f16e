"""What do others say? llama-bench measures the same; llama-mdl predicts, and so does the rule that most tools have."""

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
    n_generated: int = N_GENERATED,
    repetitions: int = 3,
) -> Mapping[str, float]:
    """Tokens a second by llama-bench, by question: "prefill 512", "decode 1024".

    Raises:
        GGUFPhysError: it failed.
        OSError: it cannot be run.
    """
    base = [os.fspath(program), "-m", os.fspath(path), "-t", str(n_threads), "-o", "json", "-ngl", "0"]
    base += ["-r", str(repetitions), "--repack", str(int(repacked))]
    found: dict[str, float] = {}
    runs = [(f"prefill {n}", ["-p", str(n), "-n", "0"]) for n in prompts]
    runs += [(f"decode {d}", ["-p", "0", "-n", str(n_generated), "-d", str(d)]) for d in depths]
    for name, more in runs:
        done = subprocess.run([*base, *more], capture_output=True, encoding="utf-8", errors="replace", check=False)
        if done.returncode:
            raise GGUFPhysError(f"llama-bench failed: {done.stderr.strip().splitlines()[-1:]}")
        found[name] = float(json.loads(done.stdout)[0]["avg_ts"])
    return found


def bandwidth_over_bytes(
    gguf: GGUFFile, machine: Machine, n_threads: int, depths: Sequence[int]
) -> Mapping[str, float]:
    """The rule that most tools have, llama-roofline's ceiling too: the same at any depth and for any type."""
    nbytes = sum(tensor.nbytes or 0 for tensor in gguf.tensors)
    return {f"decode {depth}": machine.host(n_threads).bytes_per_s / nbytes for depth in depths}


def llama_mdl(program: Path, path: str | os.PathLike[str]) -> Mapping[str, float]:
    """What `mdl fit` (llama-mdl on PyPI) says of decode without depth and of prefill, whatever the threads.

    Raises:
        GGUFPhysError: it failed, or says something else than it did in 0.14.
        OSError: it cannot be run.
    """
    done = subprocess.run(
        [program, "fit", path, "--json"], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    try:
        speed = json.loads(done.stdout)["picks"][0]["speed"]
        return {"decode 0": float(speed["decode0"]), "prefill 512": float(speed["prefill"])}
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise GGUFPhysError(f"{program}: no speeds in what `mdl fit --json` says ({error!r})") from None
