"""The measured process: `python -m bench.speed.child CONFIG_JSON`, a JSON object a line to stdout for each measurement.

CONFIG: the model's `path`, `params` (of one sequence and of several), and the `questions`, each {"kind": "prefill",
"n_tokens"}, {"kind": "decode", "depth"} or {"kind": "batch", "n_seqs", "depth"}, depth 0 where it is left out. Between
steps the gauge is looked at.
"""

import json
import sys
import time
from statistics import median
from typing import Any, Final

from bench.calibrate.clock import clock_for
from bench.calibrate.gauge import Gauge
from bench.running.telling import emit, run_telling
from bench.speed.depth import UnfillableError, fill
from ggufphys.params import Params
from server.engine.llama.batch import Batch
from server.engine.llama.library import create_context, load_model
from server.engine.llama.waiting import Waiting, thread_times, worst_share

N_FIRST: Final = 8  # tokens that a cache has before it is filled
WARM_UP: Final = 3  # steps
MIN_STEPS, MAX_STEPS, ENOUGH_S = 5, 96, 2.0
MAX_PROMPTS, ENOUGH_PROMPTS_S = 8, 8.0
N_LOOKS: Final = 4  # at the gauge, before a prompt and after
LOOK_S: Final = 0.05  # of steps between two looks: a step behind one finds other things in the core's cache


class Runner:
    """A context, asked one question after the other."""

    def __init__(self, model: Any, params: Params, *, on_node: Any = None) -> None:
        self.context = create_context(model, params, on_node=on_node)
        self.batch = Batch(self.context, self.context.params.n_batch)
        self.waiting = Waiting()
        self.clock = clock_for(self.context.n_threads)
        self.gauge = Gauge(self.context.n_threads)
        self.n_vocab = int(model.api.llama_vocab_n_tokens(model.vocab))

    def step(self, tokens: dict[int, list[int]], start: int) -> float:
        """Decode tokens of sequences from a position on; seconds."""
        self.batch.clear()
        for seq_id, own in tokens.items():
            self.batch.add(own, seq_id=seq_id, start=start, logits_of_last=True)
        started = self.clock()
        code = self.batch.decode(self.context)
        self.context.api.llama_synchronize(self.context.pointer)
        seconds = self.clock() - started
        self.waiting.after_step()
        if code:
            raise RuntimeError(f"llama_decode returned {code} at position {start}")
        return seconds

    def some(self, n: int, of: int = 0) -> list[int]:
        """`n` tokens that repeat late; other ones for each number `of`."""
        return [(7919 * (i + 31 * of) + 13) % self.n_vocab for i in range(n)]

    def clear(self) -> None:
        """Forget all sequences."""
        self.context.api.llama_memory_clear(self.context.memory, True)

    def prefill(self, n_tokens: int) -> list[float]:
        """Prompts of one sequence, in batches as large as allowed; a first one touches memory that nobody has used."""
        found: list[float] = []
        while len(found) < 2 or (len(found) < MAX_PROMPTS and sum(found) * (1 + 1 / len(found)) < ENOUGH_PROMPTS_S):
            self.look(N_LOOKS)
            self.clear()
            tokens = self.some(n_tokens, len(found))
            found.append(0.0)
            for at in range(0, n_tokens, self.batch.capacity):
                found[-1] += self.step({0: tokens[at : at + self.batch.capacity]}, at)
        self.look(N_LOOKS)
        return found[1:]

    def look(self, n: int = 1) -> None:
        """Look at the gauge."""
        for _ in range(n):
            self.gauge.look()

    def close(self) -> None:
        """Free it all."""
        self.gauge.close()
        self.waiting.close()
        self.batch.close()
        self.context.close()

    def fill(self, depth: int) -> None:
        """Forget all sequences; the first one has so many tokens then."""
        self.clear()
        if not depth:
            return
        self.step({0: self.some(N_FIRST)}, 0)
        try:
            fill(self.context, depth, self.context.model.hparams)
        except UnfillableError:
            self.read(0, N_FIRST, depth)

    def read(self, seq_id: int, start: int, end: int) -> None:
        """Read a prompt's tokens from one position to another."""
        for at in range(start, end, self.batch.capacity):
            self.step({seq_id: self.some(min(self.batch.capacity, end - at))}, at)

    def decode(self, depth: int, n_seqs: int = 1) -> tuple[list[float], int]:
        """Steps behind so many tokens, each sequence with one; how many tokens are before the middle one of them."""
        self.fill(depth)
        for seq_id in range(1, n_seqs):
            self.read(seq_id, 0, depth)
        at = depth
        found: list[float] = []
        unseen_s = 0.0
        self.look()
        while len(found) < WARM_UP + MIN_STEPS or (len(found) < MAX_STEPS and sum(found) < ENOUGH_S):
            found.append(self.step({i: self.some(1, len(found) + i) for i in range(n_seqs)}, at))
            unseen_s += found[-1]
            if unseen_s >= LOOK_S:
                self.look()
                unseen_s = 0.0
            at += 1
        self.look()
        return found[WARM_UP:], depth + (WARM_UP + len(found)) // 2


def main() -> int:
    """Answer the questions."""
    config = json.loads(sys.argv[1])
    started = time.perf_counter()
    with load_model(config["path"], Params.from_json(config["params"])) as model:
        emit(loaded_s=time.perf_counter() - started)
        for kinds, name in ((("prefill", "decode"), "params"), (("batch",), "batch_params")):
            questions = [q for q in config["questions"] if q["kind"] in kinds]
            if not questions:
                continue
            runner = Runner(model, Params.from_json(config[name]))
            for question in questions:
                before = thread_times()
                runner.gauge.mean()
                depth = 0
                if question["kind"] == "prefill":
                    seconds, n = runner.prefill(question["n_tokens"]), question["n_tokens"]
                else:
                    n = question.get("n_seqs", 1)
                    seconds, depth = runner.decode(question.get("depth", 0), n)
                busy, gauge_s = worst_share(before, thread_times()), runner.gauge.mean()
                rate = n / median(seconds)
                emit(question=question, tok_per_s=rate, seconds=seconds, depth=depth, busy=busy, gauge_s=gauge_s)
            runner.close()
    return 0


if __name__ == "__main__":
    run_telling(main)
