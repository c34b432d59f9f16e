"""Does `bench load` measure what llama-benchy measures, on the same server in the same minutes?

`python -m bench.load_peers URL --peer llama-benchy --tokenizer MODEL.gguf [-c 1,4] [--rounds 3] [--json]`

Rounds of both are interleaved, which is first changes from round to round: so many clients start at once with prompts
and answers of the same length, nothing is cached, no answer ends early. Compared are the tokens of prompts by the
server's own count, the time to the first token and the tokens a second behind it, all as llama-benchy defines them.
Both ask through a relay that notes when what passes: a machine's pace moves either client's figure by far more than
they differ, so each is divided by the relay's of the very same requests. It wants a tokenizer and a book from the
network; it gets the model's own tokenizer (byte-level BPE ones) and this client's words from here. Exit code 1 when
`bench load` and llama-benchy are off from each other by over 3 %.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from bench.load.prompts import WORDS
from bench.load.relay import Exchange, relayed
from bench.running.program import existing_program, run_program
from ggufphys import open_gguf
from ggufphys.machine.children import module_command
from ggufphys.report.inspection import table

TOLERANCE: Final = 0.03
N_WORDS: Final = 20_000
TRIES: Final = 3


Figures = dict[str, float]


class LostError(RuntimeError):
    """A client leaves requests out of its means: those on a connection that the server had closed, say."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as a clock saw it: tokens by the server's count, when it was sent, first and last content."""

    n_prompt: int
    n_predict: int
    sent_s: float
    first_s: float
    last_s: float


def figures(batches: Sequence[Sequence[Seen]]) -> Figures:
    """What llama-benchy says of batches of requests that began together: means, tokens behind each first one."""
    requests = [seen for batch in batches for seen in batch]
    rates = [
        sum(seen.n_predict - 1 for seen in batch)
        / (max(seen.last_s for seen in batch) - min(seen.first_s for seen in batch))
        for batch in batches
    ]
    return {
        "prompt_tokens": mean(seen.n_prompt for seen in requests),
        "ttft_s": mean(seen.first_s - seen.sent_s for seen in requests),
        "decode_tok_per_s": mean(rates),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure at a number of clients, by both, round by round; `ours_wire`, `theirs_wire`: the relay's of the same."""

    clients: int
    figure: str
    ours: tuple[float, ...]
    ours_wire: tuple[float, ...]
    theirs: tuple[float, ...]
    theirs_wire: tuple[float, ...]

    @property
    def ours_off(self) -> float:
        """Ours by the relay's, the median of the rounds."""
        return _median_ratio(self.ours, self.ours_wire)

    @property
    def theirs_off(self) -> float:
        """What llama-benchy measured by what the relay saw."""
        return _median_ratio(self.theirs, self.theirs_wire)

    @property
    def ratio(self) -> float:
        """Ours by theirs, of the same truth."""
        return self.ours_off / self.theirs_off

    @property
    def holds(self) -> bool:
        """Do they agree?"""
        return abs(self.ratio - 1) <= TOLERANCE


def _median_ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    return median(one / other for one, other in zip(ones, others, strict=True))


def tokenizer_json(path: Path) -> dict[str, Any]:
    """The file's vocabulary as the `tokenizers` package reads it.

    Raises:
        ValueError: it is no byte-level BPE.
    """
    with open_gguf(path) as gguf:
        if gguf.get_str("tokenizer.ggml.model", "") != "gpt2":
            raise ValueError(f"--tokenizer {path}: expected a model with a byte-level BPE (gpt2) tokenizer")
        vocabulary = {str(token): i for i, token in enumerate(gguf.get_array("tokenizer.ggml.tokens") or ())}
        merges = [str(pair).split(" ") for pair in gguf.get_array("tokenizer.ggml.merges") or ()]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }  # fmt: skip


@contextmanager
def book() -> Iterator[str]:
    """The address of a text of the words that our prompts are made of."""
    text = " ".join(random.Random(1).choices(WORDS, k=N_WORDS)).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/book.txt"
        finally:
            server.shutdown()
            thread.join()


def ours(args: argparse.Namespace, clients: int, folder: Path, url: str) -> Figures:
    """One round of `bench load`: each client a request; the first batch opens connections, and does not count."""
    lines = folder / "requests.jsonl"
    command = module_command(
        "ggufphys", "bench", "load", url, "-c", str(clients), "-n", str(clients), "--repeat", str(args.runs + 1),
        "-p", str(args.prompt), "-g", str(args.answer), "--jsonl", str(lines), "--seed", str(random.randrange(1 << 30)),
        "--extra", '{"ignore_eos": true, "cache_prompt": false}', "--json",
    )  # fmt: skip
    _run(command, os.environ)
    rounds: dict[int, list[Seen]] = {}
    for r in map(json.loads, lines.read_text(encoding="utf-8").splitlines()):
        at = [r["sent_s"] + piece_s for piece_s in (0.0, r["pieces_s"][0], r["pieces_s"][-1])]
        rounds.setdefault(r["round"], []).append(Seen(r["n_prompt"], r["n_predict"], *at))
    return figures([rounds[i] for i in sorted(rounds)[1:]])


def theirs(args: argparse.Namespace, clients: int, folder: Path, book_url: str, url: str) -> Figures:
    """One round of llama-benchy's, whose first batch does not count either."""
    result = folder / "result.json"
    command = [
        args.peer, "--base-url", f"{url.rstrip('/').removesuffix('/v1')}/v1", "--model", args.model, "--tokenizer",
        str(folder), "--pp", str(args.prompt), "--tg", str(args.answer), "--exact-tg", "--no-cache", "--runs",
        str(args.runs), "--concurrency", str(clients), "--skip-coherence", "--book-url", book_url, "--latency-mode",
        "none", "--save-result", str(result), "--format", "json",
    ]  # fmt: skip
    _run(command, {**os.environ, "HOME": str(folder)})
    (run,) = json.loads(result.read_text(encoding="utf-8"))["benchmarks"]
    if len(run["e2e_ttft"]["values"]) < args.runs * clients:
        raise LostError(
            f"llama-benchy has answers to {len(run['e2e_ttft']['values'])} of {args.runs * clients} requests"
        )
    # Their quotient is the server's count; where a chat template is over a fifth of a prompt, what was asked for.
    read = zip(run["pp_req_throughput"]["values"], run["ttfr"]["values"], strict=True)
    return {
        "prompt_tokens": mean(tok_per_s * ms / 1e3 for tok_per_s, ms in read),
        "ttft_s": run["e2e_ttft"]["mean"] / 1e3,
        "decode_tok_per_s": run["tg_throughput"]["mean"],
    }


def _run(command: Sequence[str], environment: Any) -> None:
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: exit code {done.returncode}\n{done.stdout[-800:]}\n{done.stderr[-800:]}")


def on_the_wire(exchanges: Sequence[Exchange], clients: int, runs: int) -> Figures:
    """Figures of the last `runs` batches as they passed the relay."""
    answers = [exchange.answer for exchange in exchanges if exchange.answer.pieces][-runs * clients :]
    if len(answers) < runs * clients:
        raise RuntimeError(f"{len(answers)} answers had content, expected {runs * clients}")
    seen = [Seen(a.n_prompt or 0, a.n_tokens, a.sent_s, a.pieces[0], a.pieces[-1]) for a in answers]
    return figures([seen[i : i + clients] for i in range(0, len(seen), clients)])


def compare(args: argparse.Namespace) -> Iterator[Row]:
    """Interleaved rounds at each number of clients."""
    with tempfile.TemporaryDirectory() as name, book() as book_url, relayed(args.url) as (url, exchanges):
        folder = Path(name)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(args.tokenizer)), encoding="utf-8")
        for clients in args.clients:
            sides = (partial(ours, args, clients, folder, url), partial(theirs, args, clients, folder, book_url, url))
            found: tuple[list[Figures], ...] = ([], [], [], [])
            for i in range(args.rounds):
                for side in (0, 1) if i % 2 == 0 else (1, 0):
                    found[2 * side].append(_whole(sides[side], exchanges))
                    found[2 * side + 1].append(on_the_wire(exchanges, clients, args.runs))
            for figure in found[0][0]:
                o, o_wire, t, t_wire = (tuple(figures[figure] for figures in one) for one in found)
                yield Row(clients=clients, figure=figure, ours=o, ours_wire=o_wire, theirs=t, theirs_wire=t_wire)


def _whole(side: Callable[[], Figures], exchanges: list[Exchange]) -> Figures:
    """A round that lost no request; one that did is done again: the requests of a mean have to be the wire's."""
    for _ in range(TRIES):
        exchanges.clear()
        try:
            return side()
        except LostError as error:
            sys.stderr.write(f"{error}: the round is done again\n")
    raise LostError(f"requests were lost in each of {TRIES} rounds")


def as_text(rows: Sequence[Row]) -> str:
    """A row a figure: each client's median, and by how much of it the relay's of the same requests differs."""
    header = ("clients", "figure", "bench load", "by the relay's", "llama-benchy", "by the relay's", "ratio")
    cells = [
        (
            str(row.clients), row.figure, f"{median(row.ours):.4g}", f"{row.ours_off:.4f}",
            f"{median(row.theirs):.4g}", f"{row.theirs_off:.4f}", f"{row.ratio:.4f}",
        )
        for row in rows
    ]  # fmt: skip
    return "\n".join(table(header, cells, right=(0, 2, 3, 4, 5, 6))) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.load_peers", description=__doc__)
    parser.add_argument("url", metavar="URL", help="a server that serves the model already")
    parser.add_argument(
        "--peer",
        required=True,
        type=existing_program,
        metavar="PROGRAM",
        help="llama-benchy, from its own environment",
    )
    parser.add_argument("--tokenizer", required=True, type=Path, metavar="MODEL.gguf", help="the model that is served")
    parser.add_argument("--model", default="model", help="its name for the server (default: model)")
    parser.add_argument("-c", "--clients", type=lambda t: [int(n) for n in t.split(",")], default=[1, 4])
    parser.add_argument("-p", "--prompt", type=int, default=256, help="tokens of a prompt (256)")
    parser.add_argument("-g", "--answer", type=int, default=64, help="tokens of an answer (64)")
    parser.add_argument("--rounds", type=int, default=3, help="of each, interleaved (3)")
    parser.add_argument("--runs", type=int, default=4, help="batches of requests a round (4)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    args = parser.parse_args(argv)
    rows = list(compare(args))
    if args.json:
        document = [
            asdict(row) | {"ours_off": row.ours_off, "theirs_off": row.theirs_off, "ratio": row.ratio} for row in rows
        ]
        sys.stdout.write(json.dumps({"schema_version": 1, "rows": document}) + "\n")
    else:
        sys.stdout.write(as_text(rows))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    run_program(main)
