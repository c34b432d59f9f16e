"""Does `bench load` measure what llama-benchy measures, on the same server in the same minutes?

`python -m bench.load_peers URL --peer llama-benchy --tokenizer MODEL.gguf [-c 1,4] [--rounds 3] [--json]`

Rounds of both are interleaved: so many clients start at once with prompts and answers of the same length, nothing is
cached, no answer ends early. Compared are medians over the rounds of the time to the first token and of the tokens a
second behind it, as llama-benchy defines both. It wants a tokenizer and a book from the network; it gets the model's
own tokenizer (byte-level BPE ones) and this client's words from here. Exit code 1 when a ratio is off by over 3 %.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from bench.load.prompts import WORDS
from ggufphys import open_gguf
from ggufphys.machine.children import module_command

TOLERANCE: Final = 0.03
N_WORDS: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure at a number of clients, by both."""

    clients: int
    figure: str
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return self.ours / self.theirs

    @property
    def holds(self) -> bool:
        """Do they agree?"""
        return abs(self.ratio - 1) <= TOLERANCE


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


def ours(args: argparse.Namespace, clients: int, folder: Path) -> dict[str, float]:
    """One round of `bench load`: each client a request."""
    lines = folder / "requests.jsonl"
    command = module_command(
        "ggufphys", "bench", "load", args.url, "-c", str(clients), "-n", str(clients), "--repeat", str(args.runs),
        "-p", str(args.prompt), "-g", str(args.answer), "--jsonl", str(lines), "--seed", str(random.randrange(1 << 30)),
        "--extra", '{"ignore_eos": true, "cache_prompt": false}', "--json",
    )  # fmt: skip
    _run(command, os.environ)
    requests = [json.loads(line) for line in lines.read_text().splitlines()]
    rounds: dict[int, list[dict[str, Any]]] = {}
    for request in requests:
        rounds.setdefault(request["round"], []).append(request)
    rates = []
    for batch in rounds.values():
        first = min(r["sent_s"] + r["ttft_s"] for r in batch)
        last = max(r["sent_s"] + r["e2e_s"] for r in batch)
        rates.append(sum(r["n_predict"] - 1 for r in batch) / (last - first))
    return {"ttft_s": mean(r["ttft_s"] for r in requests), "decode_tok_per_s": mean(rates)}


def theirs(args: argparse.Namespace, clients: int, folder: Path, book_url: str) -> dict[str, float]:
    """One round of llama-benchy's."""
    result = folder / "result.json"
    command = [
        args.peer, "--base-url", f"{args.url.rstrip('/').removesuffix('/v1')}/v1", "--model", args.model, "--tokenizer",
        str(folder), "--pp", str(args.prompt), "--tg", str(args.answer), "--exact-tg", "--no-cache", "--runs",
        str(args.runs), "--concurrency", str(clients), "--skip-coherence", "--book-url", book_url, "--latency-mode",
        "none", "--save-result", str(result), "--format", "json",
    ]  # fmt: skip
    _run(command, {**os.environ, "HOME": str(folder)})
    (run,) = json.loads(result.read_text())["benchmarks"]
    return {"ttft_s": run["e2e_ttft"]["mean"] / 1e3, "decode_tok_per_s": run["tg_throughput"]["mean"]}


def _run(command: Sequence[str], environment: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: exit code {done.returncode}\n{done.stdout[-800:]}\n{done.stderr[-800:]}")


def compare(args: argparse.Namespace) -> Iterator[Row]:
    """Interleaved rounds at each number of clients."""
    with tempfile.TemporaryDirectory() as name, book() as book_url:
        folder = Path(name)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(args.tokenizer)))
        for clients in args.clients:
            rounds = [
                (ours(args, clients, folder), theirs(args, clients, folder, book_url)) for _ in range(args.rounds)
            ]
            for figure in rounds[0][0]:
                of_ours, of_theirs = (median(r[side][figure] for r in rounds) for side in (0, 1))
                yield Row(clients=clients, figure=figure, ours=of_ours, theirs=of_theirs)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.load_peers", description=__doc__)
    parser.add_argument("url", metavar="URL", help="a server that serves the model already")
    parser.add_argument("--peer", required=True, metavar="PROGRAM", help="llama-benchy, from an environment of its own")
    parser.add_argument("--tokenizer", required=True, type=Path, metavar="MODEL.gguf", help="the model that is served")
    parser.add_argument("--model", default="model", help="its name for the server (default: model)")
    parser.add_argument("-c", "--clients", type=lambda t: [int(n) for n in t.split(",")], default=[1, 4])
    parser.add_argument("-p", "--prompt", type=int, default=128, help="tokens of a prompt (128)")
    parser.add_argument("-g", "--answer", type=int, default=64, help="tokens of an answer (64)")
    parser.add_argument("--rounds", type=int, default=3, help="of each, interleaved (3)")
    parser.add_argument("--runs", type=int, default=4, help="batches of requests a round (4)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    args = parser.parse_args(argv)
    rows = list(compare(args))
    if args.json:
        document = [asdict(row) | {"ratio": row.ratio} for row in rows]
        sys.stdout.write(json.dumps({"schema_version": 1, "rows": document}) + "\n")
    else:
        sys.stdout.write(f"{'clients':8}{'figure':20}{'bench load':>12}{'llama-benchy':>14}{'ratio':>8}\n")
        for row in rows:
            sys.stdout.write(f"{row.clients:<8}{row.figure:20}{row.ours:12.4f}{row.theirs:14.4f}{row.ratio:8.3f}\n")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
