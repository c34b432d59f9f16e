"""How often are predictions for another build what it accounts, for random models run in random ways?

usage: python -m scripts.check_build N [-n MODELS] [--ways WAYS] [--seed SEED] [--c-library FOLDER] [--wheel FOLDER]

N is a build that PyPI has a wheel of, which is fetched and asked as `scripts.record_build` does it. Each difference is
named. Exit 1 where bytes differ: what a build refuses is told by none of our rules, so it only counts.
"""

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ggufphys
from bench.running.program import existing_folder, run_program
from ggufphys.params import Params
from scripts.check_random import Row, describe, ours_of, predictor_of
from scripts.record_build import add_c_library, ask_about, fetch
from tests import archs, builds
from tests.load_changes import Draft
from tests.random_runs import random_model, random_params


def way_of(build: int, rng: random.Random) -> Params:
    """A random way of what the build's oracle can be asked for: nothing allocated, nothing repacked, no embeddings."""
    return replace(
        random_params(rng), embeddings=False, pooling="model", use_extra_bufts=False, use_mmap=False, no_alloc=True,
        offload_kqv=True, op_offload=True, override_tensor=(), llama_build=build,
    )  # fmt: skip


def rows(build: int, wheel: Path, c_library: Path | None, n: int, n_ways: int, seed: str) -> Iterator[Row]:
    """`n_ways` rows for each of `n` models that can be had, but for those that the build cannot be asked about."""
    names = list(archs.records())
    with tempfile.TemporaryDirectory() as folder:
        drafts: dict[str, Draft] = {}
        for i in range(n):
            rng = random.Random(f"{seed} {i}")
            draft = random_model(rng.choice(names), rng)
            if draft is not None:
                drafts[str(i)] = draft
        files = {number: Path(folder, f"{number}.gguf") for number in drafts}
        ways = {
            number: [way_of(build, random.Random(f"{seed} {number} {way}")) for way in range(n_ways)]
            for number in drafts
        }
        for number, path in files.items():
            drafts[number].write(path)
        said = ask_about(files, wheel, c_library, ways)
        for number, path in files.items():
            yield from _compared(number, drafts[number], path, ways[number], said[number])


def _compared(number: str, draft: Draft, path: Path, ways: list[Params], said: tuple[builds.Row, ...]) -> Iterator[Row]:
    with ggufphys.open_gguf(path) as gguf:
        predictor, why = predictor_of(gguf)
        for way, (params, theirs) in enumerate(zip(ways, said, strict=True)):
            if theirs == "unknown":
                continue
            ours, words = ours_of(predictor, params) if predictor else ("refused", why)
            yield Row(f"{number}.{way}", draft, params, ours, theirs, words)


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=int, metavar="N", help="a build that PyPI has a wheel of")
    parser.add_argument("-n", type=int, default=200, help="how many models are tried (default 200)")
    parser.add_argument("--ways", type=int, default=4, help="ways of running each (default 4)")
    parser.add_argument("--seed", default="1", help="of models and ways (default 1)")
    add_c_library(parser)
    parser.add_argument("--wheel", type=existing_folder, metavar="FOLDER", help="the wheel, unpacked already")
    args = parser.parse_args()
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        wheel = args.wheel or fetch(args.build, Path(folder))
        for row in rows(args.build, wheel, args.c_library, args.n, args.ways, args.seed):
            seen[row.verdict] += 1
            if row.verdict.isupper():
                print(describe(row), flush=True)
    for verdict, n in seen.most_common():
        print(f"{verdict:28}{n:6,}")
    return 1 if "OTHER BYTES" in seen else 0


if __name__ == "__main__":
    run_program(main)
