"""How often are predictions for random models, run in random ways, what llama.cpp accounts? Each difference named.

usage: python -m scripts.check_random [-n MODELS] [--ways WAYS] [--seed SEED] [--model NAME] [--number N] [--rpc|--lora]

Models are the small ones of `tests/data` in other sizes and types, with other keys and tensors; bytes are all that it
accounts for, and each worker's of them. With --lora each model has a random adapter, and bytes are its buffers' and the
compute buffer's. Exit 1 where bytes or a refusal differ. `scripts.check_build` asks another build.
"""

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import ggufphys
from bench.running.program import run_program
from ggufphys.memory.attachments import Attachments
from ggufphys.memory.attachments.predict import predict_attached
from ggufphys.memory.predict import Predictor
from ggufphys.params import Device, Params, rpc_device
from tests import archs
from tests.forking_oracle import ForkingOracle
from tests.load_changes import Draft
from tests.random_runs import random_adapter, random_model, random_params
from tests.rpc_worker import workers


@dataclass(frozen=True, slots=True)
class Row:
    """One model run in one way: our bytes and llama.cpp's, or why there are none."""

    number: str
    draft: Draft
    params: Params
    ours: Any
    theirs: Any
    words: str

    @property
    def verdict(self) -> str:
        """Same, or what is different; where llama.cpp ends the process, we should refuse."""
        if self.ours == self.theirs:
            return "both refuse" if self.ours == "refused" else "same bytes"
        if self.theirs == "aborts":
            return "it aborts, we refuse" if self.ours == "refused" else "IT ABORTS, WE PREDICT"
        if self.ours == "refused":
            return "WE REFUSE, IT RUNS"
        return "IT REFUSES, WE PREDICT" if self.theirs == "refused" else "OTHER BYTES"


def rows(
    names: list[str], n: int, ways: int, seed: str, devices: tuple[Device, ...], only: str = "", *, lora: bool = False
) -> Iterator[Row]:
    """`ways` rows for each of `n` models that can be had; the seed and the number make a model and its ways."""
    with tempfile.TemporaryDirectory() as folder, ForkingOracle() as oracle:
        path, adapter = Path(folder) / "random.gguf", Path(folder) / "adapter.gguf"
        for number in [int(only.partition(".")[0])] if only else range(n):
            rng = random.Random(f"{seed} {number}")
            draft = random_model(rng.choice(names), rng)
            if draft is None:
                continue
            draft.write(path)
            if lora:
                random_adapter(draft, rng).write(adapter)
            loras = (adapter,) if lora else ()
            with ggufphys.open_gguf(path) as gguf:
                predictor, why = predictor_of(gguf)
                for way in range(ways):
                    params = random_params(random.Random(f"{seed} {number} {way}"), devices)
                    if only.partition(".")[2] not in ("", str(way)):
                        continue
                    if lora:
                        params = replace(params, no_alloc=False, n_rs_seq=0)
                    ours, words = ours_of(predictor, params, loras) if predictor else ("refused", why)
                    answer = oracle.ask(path, params, loras)
                    yield Row(f"{number}.{way}", draft, params, ours, *_theirs(answer, params, words))


def predictor_of(gguf: ggufphys.GGUFFile) -> tuple[Predictor | None, str]:
    """What predicts of the file, or why nothing can be predicted."""
    try:
        return Predictor(gguf), ""
    except (ggufphys.GGUFError, ggufphys.UnsupportedError) as error:
        return None, str(error)


def ours_of(predictor: Predictor, params: Params, loras: tuple[Path, ...] = ()) -> tuple[Any, str]:
    """Our bytes and nothing, or "refused" and why."""
    try:
        if loras:
            return _with_adapters(predictor, params, loras), ""
        memory = predictor.predict(params)
    except (ValueError, ggufphys.GGUFError, ggufphys.UnsupportedError) as error:
        return "refused", str(error)
    of_devices = ((d.model_bytes, d.context_bytes, d.compute_bytes) for d in memory.devices[1:])
    return (memory.model_bytes, memory.context_bytes, memory.compute_bytes, *of_devices), ""


def _with_adapters(predictor: Predictor, params: Params, loras: tuple[Path, ...]) -> Any:
    attached = Attachments(loras=tuple(ggufphys.open_gguf(path) for path in loras))
    memory = predict_attached(predictor.gguf, params, attached, predictor=predictor)
    buffers: Counter[str] = Counter()
    for term in memory.terms:
        if term.quantity == "attachment":
            buffers[term.buffer] += term.nbytes
    return memory.compute_bytes, dict(sorted(buffers.items()))


def _theirs(answer: dict[str, Any], params: Params, words: str) -> tuple[Any, str]:
    if "aborts" in answer:
        return "aborts", f"{words} || {answer['aborts']}"
    if "error" in answer:
        return "refused", f"{words} || {answer['error']}"
    if "buffers" in answer:
        return (answer["compute"], dict(sorted(answer["buffers"].items()))), words
    buffers = (answer["by_buffer"].get(device.name, {}) for device in params.devices)
    of_devices = (tuple(sizes.get(name, 0) for name in ("model", "context", "compute")) for sizes in buffers)
    return (answer["model"], answer["context"], answer["compute"], *of_devices), f"{words} || {answer['by_buffer']}"


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=200, help="how many models are tried (default 200)")
    parser.add_argument("--ways", type=int, default=5, help="ways of running each (default 5)")
    parser.add_argument("--seed", default="1", help="of models and ways (default 1)")
    parser.add_argument("--model", default="", help="models whose name has this in it")
    parser.add_argument("--number", default="", help="this model, or this model and way (12.3), alone")
    parser.add_argument("--rpc", action="store_true", help="with RPC workers on this machine, too")
    parser.add_argument("--lora", action="store_true", help="with a LoRA adapter")
    args = parser.parse_args()
    names = [name for name in archs.records() if args.model in name]
    seen: Counter[str] = Counter()
    with workers(2) if args.rpc else nullcontext(()) as endpoints:
        devices = tuple(rpc_device(endpoint, 1 << 30) for endpoint in endpoints)
        for row in rows(names, args.n, args.ways, args.seed, devices, args.number, lora=args.lora):
            seen[row.verdict] += 1
            if row.verdict.isupper() or args.number:
                print(describe(row), flush=True)
    for verdict, n in seen.most_common():
        print(f"{verdict:28}{n:6,}")
    return 1 if any(verdict.isupper() for verdict in seen) else 0


def describe(row: Row) -> str:
    """A row in words: the model's keys and the parameters that are not as usual."""
    known = archs.models()[row.draft.name].metadata
    keys = {k: v.value for k, v in row.draft.metadata.items() if not isinstance(v.value, float)}
    keys = {k: v for k, v in keys.items() if known.get(k) != (list(v) if isinstance(v, tuple) else v)}
    default = Params()
    ways = {
        f.name: getattr(row.params, f.name)
        for f in fields(row.params)
        if getattr(row.params, f.name) != getattr(default, f.name)
    }
    head = f"{row.number} {row.draft.name}: {row.verdict}\n    {keys}\n    {ways}\n"
    return f"{head}    ours {row.ours} llama.cpp {row.theirs}  {row.words[:700]}"


if __name__ == "__main__":
    run_program(main)
