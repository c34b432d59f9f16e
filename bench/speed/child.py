"""The measured process: `python -m bench.speed.child CONFIG_JSON`, a JSON object a line to stdout for each measurement.

CONFIG: the model's `path`, `params` (of one sequence and of several), and the `questions`, each {"kind": "prefill",
"n_tokens"}, {"kind": "decode", "depth"} or {"kind": "batch", "n_seqs"}.
"""

import json
import sys
import time
from statistics import median
from typing import Any, Final

from bench.calibrate.clock import clock_for
from bench.speed.depth import UnfillableError, fill
from bench.telling import emit, run_telling
from ggufphys.params import Params
from server.engine.batch import Batch
from server.engine.library import create_context, load_model
from server.engine.waiting import Waiting, thread_times, worst_share

N_FIRST: Final = 8  # tokens that a cache has before it is filled
WARM_UP: Final = 3  # steps
MIN_STEPS, MAX_STEPS, ENOUGH_S = 5, 48, 1.2


class Runner:
    """A context, asked one question after the other."""

    def __init__(self, model: Any, params: Params) -> None:
        self.context = create_context(model, params)
        self.batch = Batch(self.context, self.context.params.n_batch)
        self.waiting = Waiting()
        self.clock = clock_for(self.context.n_threads)
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
        """Tokens, different ones."""
        return [(7919 * (i + 31 * of) + 13) % self.n_vocab for i in range(n)]

    def clear(self) -> None:
        """Forget all sequences."""
        self.context.api.llama_memory_clear(self.context.memory, True)

    def prefill(self, n_tokens: int) -> list[float]:
        """Prompts of one sequence, in batches as large as allowed."""
        found = []
        for i in range(2):
            self.clear()
            seconds = 0.0
            tokens = self.some(n_tokens, i)
            for at in range(0, n_tokens, self.batch.capacity):
                seconds += self.step({0: tokens[at : at + self.batch.capacity]}, at)
            found.append(seconds)
            if seconds > 10 * ENOUGH_S:
                break
        return [min(found)] if len(found) == 2 and found[0] > 1.1 * found[1] else found

    def decode(self, depth: int, n_seqs: int = 1) -> list[float]:
        """Steps behind so many tokens, each sequence with one."""
        self.clear()
        at = 0
        if depth:
            self.step({0: self.some(N_FIRST)}, 0)
            try:
                fill(self.context, depth, self.context.model.hparams)
            except UnfillableError:
                for start in range(N_FIRST, depth, self.batch.capacity):
                    self.step({0: self.some(min(self.batch.capacity, depth - start))}, start)
            at = depth
        found: list[float] = []
        while len(found) < WARM_UP + MIN_STEPS or (len(found) < MAX_STEPS and sum(found) < ENOUGH_S):
            found.append(self.step({i: self.some(1, len(found) + i) for i in range(n_seqs)}, at))
            at += 1
        return found[WARM_UP:]


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
                if question["kind"] == "prefill":
                    seconds, n = runner.prefill(question["n_tokens"]), question["n_tokens"]
                elif question["kind"] == "decode":
                    seconds, n = runner.decode(question["depth"]), 1
                else:
                    seconds, n = runner.decode(0, question["n_seqs"]), question["n_seqs"]
                busy = worst_share(before, thread_times())
                emit(question=question, tok_per_s=n / median(seconds), seconds=seconds, busy=busy)
            runner.waiting.close()
            runner.batch.close()
            runner.context.close()
    return 0


if __name__ == "__main__":
    run_telling(main)
