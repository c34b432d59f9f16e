"""Does guessing pay? Tokens a second with guesses, by a draft model or by looking back, over those without.

`python -m bench.drafts [MODEL] [--factor K | --target TARGET] [--guesses draft;lookup] [--clients 1,4] [--rounds R]
[--n-max N] [--json]`. Without TARGET the model guesses for itself with K times as many layers, the added ones zero
(`bench.deeper`): as good a draft as there can be, for what costs K times as much. Greedy answers say what that gains at
most, answers drawn at temperature 1 what is left where many guesses are wrong. A draft's are new text, those of looking
back go on from an example like them. A server's runs with guesses and without take turns, by the requests' own word
(`speculative.n_max`); ratios are medians over rounds of ratios inside a round. `tokens a step` are an answer's; `step`
is what a step takes over one without guesses. The first steps of a server are trials (`--guesses 'draft, always'`:
none, as llama-server has it).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

from bench.deeper import write_deeper
from bench.running.program import existing_file, run_program
from ggufphys import open_gguf
from ggufphys.context import resolve
from ggufphys.embedded import MODEL
from ggufphys.memory.attachments import Draft
from ggufphys.memory.attachments.predict import draft_params
from ggufphys.params import Params
from server.engine.events import Failed, Finished
from server.engine.guessing import DraftFile, Guessing
from server.engine.protocol import EngineStatus
from server.engine.request import GenerationRequest
from server.engine.sampling import Sampling
from server.engine.scheduler.drafts import Drafting
from server.engine.scheduler.lookup import Lookups
from server.engine.worker.supervised import SupervisedEngine

N_TOKENS: Final = 64
LOOKUPS: Final = Lookups(n_match=6)
TIMEOUT_S: Final = 120.0
SUBJECTS: Final = ("a lighthouse", "an old map", "the first snow", "a train at night", "two rivers", "a lost key",
                   "bread", "the sea")  # fmt: skip
PROMPTS: Final = {
    "new": "Tell a story about {}.",
    "edited": "def area(width: int, height: int) -> int:\n    return width * height\n\n# The same for {}:\n"
    "def area(width: int, height: int) -> int:\n",
}
WAYS: Final = {
    "greedy": Sampling(temperature=0, ignore_eos=True),
    "drawn": Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, ignore_eos=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is measured."""

    guesses: tuple[str, ...]
    clients: tuple[int, ...]
    rounds: int
    n_max: int
    n_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way of guessing beside none: tokens a second over those without, and how many guesses were right."""

    guesses: str
    tokens: str
    n_clients: int
    ratio: float
    accepted: float
    tokens_per_step: float
    step: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """One round's seconds, and what was done in them."""

    seconds: float
    n_steps: int
    n_drafted: int
    n_accepted: int


def measure(target: Path, draft: Path, asked: Asked) -> Iterator[Row]:
    """All that is asked for. Raises RuntimeError where a request fails."""
    n_seq_max = max(asked.clients)
    params = Params(n_ctx=512 * n_seq_max, n_seq_max=n_seq_max, n_threads=asked.n_threads, n_batch=512)
    with open_gguf(target) as gguf:
        made = resolve(params, n_ctx_train=gguf.get_int(f"{gguf.architecture}.context_length", 0), causal_attn=True)
    with open_gguf(draft) as gguf:
        own = draft_params(Draft(gguf=gguf), replace(params, n_outputs_max=n_seq_max), made)
    file = DraftFile(path=str(draft), params=own, drafting=Drafting(n_max=asked.n_max))
    for name in asked.guesses:
        guessing, n_max, text = {
            "draft": (Guessing(draft=file), asked.n_max, "new"),
            "draft, always": (Guessing(draft=file, always=True), asked.n_max, "new"),
            "lookup": (Guessing(lookups=LOOKUPS), LOOKUPS.n_max, "edited"),
            "lookup, always": (Guessing(lookups=LOOKUPS, always=True), LOOKUPS.n_max, "edited"),
        }[name]
        with_rows = replace(params, n_outputs_max=min(n_seq_max * (1 + n_max), params.n_batch))
        with started(target, with_rows, guessing) as engine:
            for tokens, sampling in WAYS.items():
                for n in asked.clients:
                    rounds = [two_runs(engine, PROMPTS[text], sampling, n, i) for i in range(asked.rounds)]
                    yield row(rounds, guesses=name, tokens=tokens, n_clients=n)


def two_runs(
    engine: SupervisedEngine, prompt: str, sampling: Sampling, n_clients: int, number: int
) -> tuple[Spent, Spent]:
    """A round without guesses and one with, the latter first in every other one."""
    found = {
        guesses: one_round(engine, prompt, sampling, n_clients, number, guesses=guesses)
        for guesses in ((False, True) if number % 2 else (True, False))
    }
    return found[False], found[True]


def row(found: list[tuple[Spent, Spent]], *, guesses: str, tokens: str, n_clients: int) -> Row:
    """What rounds without and with guesses say together."""
    with_guesses = [each[1] for each in found]
    n_drafted, n_steps = sum(s.n_drafted for s in with_guesses), sum(s.n_steps for s in with_guesses)
    return Row(
        guesses=guesses,
        tokens=tokens,
        n_clients=n_clients,
        ratio=median(plain.seconds / guessed.seconds for plain, guessed in found),
        accepted=sum(s.n_accepted for s in with_guesses) / n_drafted if n_drafted else 0.0,
        tokens_per_step=len(found) * N_TOKENS / n_steps,
        step=median((b.seconds / b.n_steps) / (a.seconds / a.n_steps) for a, b in found),
    )


@contextmanager
def started(path: Path, params: Params, guessing: Guessing) -> Iterator[SupervisedEngine]:
    """An engine that is ready."""
    engine = SupervisedEngine(path, params, guessing=guessing, warn=lambda line: print(line, file=sys.stderr))
    try:
        if engine.wait_until_settled(TIMEOUT_S) is not EngineStatus.READY:
            raise RuntimeError(str(engine.error))
        yield engine
    finally:
        engine.close()


def one_round(
    engine: SupervisedEngine, prompt: str, sampling: Sampling, n_clients: int, number: int, *, guesses: bool
) -> Spent:
    """So many answers side by side, each of `N_TOKENS`."""
    before, began = engine.counters, time.perf_counter()
    generations = [
        engine.submit(
            GenerationRequest(
                prompt=engine.tokenize(prompt.format(SUBJECTS[(number + i) % len(SUBJECTS)])),
                max_tokens=N_TOKENS,
                sampling=replace(sampling, seed=number),
                draft_max=None if guesses else 0,
                cache_prompt=False,
            )
        )
        for i in range(n_clients)
    ]
    timings = []
    for generation in generations:
        while not isinstance(event := generation.next_event(TIMEOUT_S), Finished):
            if event is None or isinstance(event, Failed):
                raise RuntimeError(f"an answer failed: {event}")
        timings.append(event.timings)
    seconds = time.perf_counter() - began
    after = engine.counters
    while after.n_active or after.n_steps == before.n_steps:  # it counts behind the last step
        time.sleep(0.01)
        after = engine.counters
    return Spent(
        seconds=seconds,
        n_steps=after.n_steps - before.n_steps,
        n_drafted=sum(each.n_drafted for each in timings),
        n_accepted=sum(each.n_draft_accepted for each in timings),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.drafts", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "model", nargs="?", type=existing_file, default=MODEL, help="what guesses (default: the embedded model)"
    )
    parser.add_argument("--factor", type=int, default=8, help="how many times as deep the model is that it guesses for")
    parser.add_argument("--target", type=existing_file, help="guess for this model instead")
    parser.add_argument("--guesses", default="draft;lookup", help="by ;: draft, lookup, and either with ', always'")
    parser.add_argument("--clients", default="1,4", help="answers side by side (default 1,4)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--n-max", type=int, default=3, help="tokens that the draft guesses at a time (default 3)")
    parser.add_argument("-t", "--threads", type=int, default=0, help="threads (default: the cores)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = parser.parse_args()
    asked = Asked(
        guesses=tuple(args.guesses.split(";")), clients=tuple(int(n) for n in args.clients.split(",")),
        rounds=args.rounds, n_max=args.n_max, n_threads=args.threads,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        target = args.target
        if target is None:
            with open_gguf(args.model) as gguf:
                target = write_deeper(gguf, Path(folder) / "deeper.gguf", args.factor)
        rows = measure(target, args.model, asked)
        if args.json:
            print(json.dumps([asdict(each) for each in rows], indent=1))
            return
        print(f"load {os.getloadavg()[0]:.1f}")
        print("guesses         tokens  clients  tok/s over none  right  tokens a step  step")
        for each in rows:
            print(
                f"{each.guesses:15} {each.tokens:7} {each.n_clients:7}  {each.ratio:15.2f}  "
                f"{each.accepted:5.0%}  {each.tokens_per_step:13.2f}  {each.step:4.2f}",
                flush=True,
            )


if __name__ == "__main__":
    run_program(main)
