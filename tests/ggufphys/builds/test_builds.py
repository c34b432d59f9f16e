"""Builds of llama.cpp as a parameter: the table of what moved, the records, and how a build is named."""

import ast
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

import ggufphys
from ggufphys import Params, open_gguf
from ggufphys.arch import RULES, rule_for
from ggufphys.arch.table import LATER
from ggufphys.builds import LATEST, MOVES, PINNED, Rule, rules_of
from ggufphys.builds.asked import build_named, installed_build
from ggufphys.builds.newer import NEWER
from ggufphys.builds.proven import why_unknown, why_unproven
from ggufphys.builds.records import MOVED, RECORDED, SEEN, SINCE, UNEXPLAINED
from ggufphys.builds.said import build_of, build_said
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.logs.runs import parse_log
from ggufphys.memory.predict import Predictor
from ggufphys.plan.reconcile import reconcile
from ggufphys.synth.catalogue import shape_named
from ggufphys.synth.plan import plan_file
from scripts.list_builds import architectures, moved, moved_older, seen, since
from tests import archs, builds

ROOT = Path(ggufphys.__file__).parent


# -- the table


def test_each_rule_has_a_row_and_is_read() -> None:
    """The table has a row for each rule, rows say when and from where, and some code asks for each of them."""
    assert sorted(move.rule for move in MOVES) == sorted(get_args(Rule))
    sources = [path.read_text() for path in ROOT.rglob("*.py") if not path.is_relative_to(ROOT / "builds")]
    for move in MOVES:
        assert any(f'"{move.rule}"' in text for text in sources), move.rule
        assert all((move.what, move.whom, move.source, move.found)), move.rule
        assert move.before < move.first if move.first else not move.before, move.rule
        assert (move.last < move.after) if move.after else not move.last, move.rule
        assert move.first <= move.last if move.last else move.first, move.rule


def test_no_code_but_the_table_compares_builds() -> None:
    """Nothing outside of `ggufphys/builds` asks whether a build is older or newer than another."""
    asks = re.compile(r"\b(llama_)?build$|\bPINNED\b|\bLATEST\b")
    found = []
    for room in ("ggufphys", "refengine", "server", "bench"):
        for path in (ROOT.parent / room).rglob("*.py"):
            text = path.read_text()
            if path.is_relative_to(ROOT / "builds") or not re.search("build|PINNED|LATEST", text):
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Compare) and any(
                    isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in node.ops
                ):
                    sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
                    if any(asks.search(side) for side in sides):
                        found.append((path.name, node.lineno, sides))
    assert not found


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.rule)
def test_a_rule_holds_from_its_first_build_to_its_last(move: ggufphys.builds.Move) -> None:
    """A rule is among those of its first and its last build, and not of the builds before and behind."""
    if move.first:
        assert move.rule in rules_of(move.first)
        assert move.rule not in rules_of(move.before)
    if move.last:
        assert move.rule in rules_of(move.last)
        assert move.rule not in rules_of(move.after)


# -- the records


def test_what_the_package_knows_is_what_was_recorded() -> None:
    """Builds, moves and first builds in `records.py` are those of the records; LATEST is the newest."""
    numbers = builds.recorded()
    assert list(RECORDED) == numbers
    assert numbers[-1] == LATEST
    assert dict(SINCE) == since(numbers)
    assert dict(SEEN) == seen(numbers)
    for before, after in pairwise(numbers):
        names = {*moved(builds.rows(before), builds.rows(after)), *moved_older(before, after)}
        assert MOVED.get(after, frozenset()) == set(architectures(names))


@pytest.mark.parametrize("build", builds.recorded())
def test_records_are_as_predicted(build: int, tmp_path: Path) -> None:
    """Small models take the bytes that are predicted for each recorded build, but for those named as unexplained."""
    numbers = builds.recorded()
    names = list(archs.records())
    _compare(build, names[numbers.index(build) :: len(names) // 3], tmp_path / "model.gguf")


@pytest.mark.slow
@pytest.mark.parametrize("build", builds.recorded())
def test_all_records_are_as_predicted(build: int, tmp_path: Path) -> None:
    """The same of all models."""
    _compare(build, list(archs.records()), tmp_path / "model.gguf")


def _compare(build: int, names: list[str], path: Path) -> None:
    for name in names:
        arch = archs.models()[name].arch
        if arch in UNEXPLAINED.get(build, ()):
            continue
        path.write_bytes(archs.header(name))
        with open_gguf(path) as gguf:
            try:
                predictor = Predictor(gguf)
            except ggufphys.UnsupportedError:
                continue
            for params, row in zip(archs.GRID, builds.rows(build)[name], strict=True):
                if isinstance(row, str):
                    continue
                memory = predictor.predict(replace(params, llama_build=build))
                assert (memory.model_bytes, memory.context_bytes, memory.compute_bytes) == row, (name, params)
                assert memory.basis["context"] == "exact"


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("mamba", 1229344, 1475104), ("mamba2", 1410592, 1656352), ("falcon-h1", 1994016, 2239776),
        ("jamba", 1754656, 2000416), ("granitehybrid", 1895200, 2140960), ("plamo2", 1730336, 1976096),
        ("nemotron_h", 1894944, 2140704),
    ],
)  # fmt: skip
def test_scans_have_the_states_of_other_sequences_copied(name: str, before: int, after: int, tmp_path: Path) -> None:
    """Compute bytes as b11352 and b11391 have them, where a batch is too small for something else to take more."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.header(name))
    params = Params(n_ctx=4096, n_seq_max=4, n_ubatch=64, kv_unified=True, use_extra_bufts=False, use_mmap=False)
    with open_gguf(path) as gguf:
        predictor = Predictor(gguf)
        found = [predictor.predict(replace(params, llama_build=build)).compute_bytes for build in (11352, 11391)]
    assert found == [before, after]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("llama", (2297472, 3145728, 67808)),
        ("mamba", (3549184, 2113536, 827488)),
        ("gemma3", (4935168, 7340032, 76128)),
    ],
)
def test_more_sequences_than_tokens_in_a_batch(name: str, row: tuple[int, int, int], tmp_path: Path) -> None:
    """Builds that limit no outputs run it, b9309 in these bytes; of the pinned one the process ends."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.header(name))
    params = Params(n_ctx=1024, n_batch=7, n_seq_max=8, use_extra_bufts=False, use_mmap=False)
    with open_gguf(path) as gguf:
        memory = Predictor(gguf).predict(replace(params, llama_build=9309))
        with pytest.raises(ValueError, match="room for 7 outputs, expected one for each of 8 sequences"):
            Predictor(gguf).predict(params)
    assert (memory.model_bytes, memory.context_bytes, memory.compute_bytes) == row


def test_what_ends_one_build_is_not_said_of_another(tmp_path: Path) -> None:
    """minimax-m3's odd blocks end b10236 where they do not divide the cells, not elsewhere, and not b10330."""
    (tmp_path / "model.gguf").write_bytes(archs.header("minimax-m3/odd"))
    with open_gguf(tmp_path / "model.gguf") as gguf:
        predictor = Predictor(gguf)
        with pytest.raises(ValueError, match="RESHAPE"):
            predictor.predict(replace(archs.GRID[9], llama_build=10236))
        for build, i in ((10236, 20), (10330, 9)):
            memory = predictor.predict(replace(archs.GRID[i], llama_build=build))
            assert memory.compute_bytes == builds.rows(build)["minimax-m3/odd"][i][2]


def test_a_fused_product_is_not_rotated(tmp_path: Path) -> None:
    """gpt2's queries, keys and values are parts of one product: b9014 ends with a quantised cache, b9102 does not."""
    (tmp_path / "model.gguf").write_bytes(archs.header("gpt2"))
    with open_gguf(tmp_path / "model.gguf") as gguf:
        predictor = Predictor(gguf)
        with pytest.raises(ValueError, match="from b9093 on"):
            predictor.predict(replace(archs.GRID[9], llama_build=9014))
        memory = predictor.predict(replace(archs.GRID[9], llama_build=9102))
        assert memory.compute_bytes == builds.rows(9102)["gpt2"][9][2]


def test_chosen_blocks_are_not_rotated(tmp_path: Path) -> None:
    """b10152 ends with minimax-m3 and a quantised cache, as recorded: that is refused, and nothing else."""
    (tmp_path / "model.gguf").write_bytes(archs.header("minimax-m3"))
    with open_gguf(tmp_path / "model.gguf") as gguf:
        predictor = Predictor(gguf)
        for params, row in zip(archs.GRID, builds.rows(10152)["minimax-m3"], strict=True):
            if row == "unknown" or params.load_mtp:
                continue
            if row in ("aborts", "refused"):
                with pytest.raises(ValueError, match="quantized|expected"):
                    predictor.predict(replace(params, llama_build=10152))
            else:
                assert predictor.predict(replace(params, llama_build=10152)).compute_bytes == row[2]


def test_a_published_shape(tmp_path: Path) -> None:
    """gpt-oss-20b in its own types and length takes what wheels of four builds accounted for."""
    plan = plan_file(shape_named("gpt-oss-20b"), "MXFP4_MOE")
    path = tmp_path / "model.gguf"
    path.write_bytes(plan.header)
    os.truncate(path, plan.file_bytes)
    params = Params(no_alloc=True, use_extra_bufts=False, use_mmap=False)
    compute = {8233: 439506944, 9445: 423626752, 10335: 429524992, 11739: 576352256}
    with open_gguf(path) as gguf:
        predictor = Predictor(gguf)
        memories = {build: predictor.predict(replace(params, llama_build=build)) for build in compute}
    assert {build: memory.compute_bytes for build, memory in memories.items()} == compute
    assert {memory.model_bytes for memory in memories.values()} == {12096558336}
    assert {memory.context_bytes for memory in memories.values()} == {3240099840}


def test_blocks_of_several_sizes_are_refused(tmp_path: Path) -> None:
    """qwen4exp's layers may have blocks of several sizes in b11327, and no more in b11391, as recorded."""
    (tmp_path / "model.gguf").write_bytes(archs.header("qwen4exp/ratios"))
    assert set(builds.rows(11391)["qwen4exp/ratios"]) == {"refused"}
    with open_gguf(tmp_path / "model.gguf") as gguf:
        Predictor(gguf).predict(Params(llama_build=11327))
        with pytest.raises(ggufphys.GGUFError, match=r"blocks of .* cells, expected one size"):
            Predictor(gguf).predict(Params(llama_build=11391))


def test_few_rows_are_unexplained() -> None:
    """In every record from b9309 on, the architectures with a row that is not as predicted are one in eight at most."""
    assert all(len(names) <= len(RULES) // 8 for build, names in UNEXPLAINED.items() if build >= 9309)


# -- how sure


def test_exact_only_where_records_agree() -> None:
    """A build is proven if it was recorded, or lies between records that agree; the reason names the nearest record."""
    assert not why_unproven("llama", PINNED)
    assert not why_unproven("llama", LATEST)
    assert not why_unproven("llama", 11700)
    assert "nearest" in why_unproven("llama", 11400)
    assert f"b{LATEST}" in why_unproven("llama", LATEST + 1)
    assert "b8233" in why_unproven("llama", 8000)


def test_an_estimate_says_so() -> None:
    """Bytes of a build in a gap are called estimates, with a note, and those of the build itself are not."""
    with open_gguf(MODEL) as gguf:
        predictor = Predictor(gguf)
        between = predictor.predict(Params(llama_build=11400))
        assert {between.basis[q] for q in ("model", "context", "compute")} == {"estimate"}
        assert any("b11391 and b11413" in note for note in between.notes)
        assert predictor.predict(Params(llama_build=11413)).basis["compute"] == "exact"


def test_an_architecture_may_be_newer_than_the_build() -> None:
    """A build that does not know the architecture is refused, with the first record that does."""
    arch, first = next(iter(SINCE.items()))
    assert f"b{first}" in why_unknown(arch, min(RECORDED))
    assert not why_unknown(arch, first)
    assert not why_unknown("llama", 1)


def test_an_architecture_may_be_known_and_not_recorded() -> None:
    """Codeshell's name is in all recorded libraries, its small model is loaded from b8840 on: an estimate before."""
    assert "codeshell" not in SINCE
    assert not why_unknown("codeshell", min(RECORDED))
    assert "b8840" in why_unproven("codeshell", min(RECORDED))
    assert not why_unproven("codeshell", 8840)
    for arch, first in SINCE.items():
        assert first <= SEEN.get(arch, first), arch


def test_names_of_newer_builds_are_told() -> None:
    """An architecture without a rule is refused with the builds of llama.cpp between which its name came."""
    for arch, (before, first) in NEWER.items():
        assert arch not in RULES
        if arch in LATER:
            continue
        with pytest.raises(ggufphys.UnsupportedError, match=f"b{first}, not yet in b{before}"):
            rule_for(arch)


# -- how it is named


def test_builds_are_named(tmp_path: Path) -> None:
    """A number with or without b, latest, pinned, or a program that is asked for its version."""
    assert [build_named(text) for text in ("b11548", "11548", "latest", "pinned")] == [11548, 11548, LATEST, PINNED]
    server = tmp_path / "llama-server"
    server.write_text("#!/bin/sh\necho 'version: 10603 (c060ca974)' >&2\necho 'built with GNU for Linux' >&2\n")
    server.chmod(server.stat().st_mode | stat.S_IEXEC)
    assert build_named(str(server)) == 10603
    server.write_text("#!/bin/sh\necho 'version: 0 (c060ca974)' >&2\n")
    assert build_named(str(server)) == 10603  # by its commit
    server.write_text("#!/bin/sh\necho 'version: 0 (unknown)' >&2\n")
    with pytest.raises(ValueError, match="does not say which build"):
        build_named(str(server))
    with pytest.raises(ValueError, match="expected a build such as"):
        build_named("nonsense")


def test_a_program_with_a_version_says_its_build(tmp_path: Path) -> None:
    """Newer programs print a version before the build's number: that is read, and the commit's where it is 0 or 1."""
    server = tmp_path / "llama-server"
    for printed, build in (("build 11549, commit 0ce8cd1", 11549), ("build 1, commit 0c1e570", PINNED)):
        server.write_text(f"#!/bin/sh\necho 'version: 0.5.0-dev ({printed})' >&2\n")
        server.chmod(server.stat().st_mode | stat.S_IEXEC)
        assert build_named(str(server)) == build
    server.write_text("#!/bin/sh\necho 'version: 0.5.0-dev (build 1, commit unknown)' >&2\n")
    with pytest.raises(ValueError, match="does not say which build"):
        build_named(str(server))


@pytest.mark.parametrize("number", ["0", "b0", "1", "b1", "00"])
def test_numbers_that_say_nothing_are_refused(number: str) -> None:
    """0 and 1, which packages print that do not know their build, are no builds to predict for."""
    with pytest.raises(ValueError, match="do not know their build"):
        build_named(number)


def test_a_library_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    """The loader's own reason is told, not that a library that nobody could ask says nothing."""
    library = tmp_path / "libllama.so"
    library.write_bytes(b"not a library")
    with pytest.raises(ValueError, match=r"cannot be loaded: .*libllama\.so"):
        build_named(str(library))


@pytest.mark.skipif(installed_build() != PINNED, reason="another llama.cpp is installed")
def test_the_installed_library_is_asked() -> None:
    """llama-cpp-python's own library says that it is the pinned build."""
    spec = find_spec("llama_cpp")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    library = next(Path(spec.submodule_search_locations[0], "lib").glob("libllama.*"))
    assert build_named(str(library)) == PINNED


def test_logs_name_builds() -> None:
    """A log's build line gives its number, or that of a recorded commit; 0, 1 and unknown give none."""
    assert build_of("11549 (0ce8cd1)") == 11549
    assert build_of("0 (c060ca9)") == 10603
    assert build_of("50 (c060ca9)") == 10603  # counted in a clone of fifty commits
    assert build_of("50 (1234567)") == 50
    assert build_of("1 (unknown)") is None
    assert build_of("unknown (unknown)") is None
    assert build_of("") is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("build: 11312 (0c1e570) with GNU 12.2.0 for Linux x86_64", "11312 (0c1e570)"),
        ("0.00.013.212 I cmn  common_param: common_params_print_info: build 1 (0c1e570) with GNU", "1 (0c1e570)"),
        ("main: build = 8233 (c5a778891)", "8233 (c5a778891)"),
        ("version: 10603 (c060ca974)", "10603 (c060ca974)"),
        ("version: 0.5.0-dev (build 11312, commit 0c1e570)", "11312 (0c1e570)"),
        ("version: 0.5.0 (build 11312, commit Homebrew)", "11312 (Homebrew)"),
        ("version: 0.5.0-dev (build 0, commit unknown)", "0 (unknown)"),
        ("build: 0 (unknown) with cc for Linux", "0 (unknown)"),
        ("build: unknown (unknown) with cc for Linux", "unknown (unknown)"),
        ("build: 0c1e570 (11312)", "11312 (0c1e570)"),
        ("build: unknown (0)", "0 (unknown)"),
        ("build      : b11312-0c1e570", "11312 (0c1e570)"),
        ("main: build_info: b8233-c5a778891", "8233 (c5a778891)"),
        ('srv  log: {"system_fingerprint":"b11312-0c1e570","usage":{}}', "11312 (0c1e570)"),
        ('{"build_commit": "0c1e570", "build_number": 11312, "cpu_info": "x"}', "11312 (0c1e570)"),
        ("User-Agent: llama-cpp/b11312-0c1e570", "11312 (0c1e570)"),
        ("loaded meta data with 3 key-value pairs and 2 tensors from m.gguf (version GGUF V3 (latest))", ""),
        ("llama_model_loader: - kv   3:  general.description str = build: 5 (1234567)", ""),
        ('srv  request: {"prompt":"build: 5 (1234567)"}', ""),
        ("llama_context: n_ctx = 512", ""),
    ],
)
def test_each_form_of_a_build_is_read(line: str, said: str) -> None:
    """Whatever line of llama.cpp's programs names a build is read, and what a file or a prompt holds is not."""
    assert build_said(line) == said


def test_a_log_may_name_its_build_behind_what_was_run() -> None:
    """llama-bench names its build last: that is the build of all that it ran; another one's start says another."""
    run = LOG.partition("\n")[2]
    behind = parse_log([*(2 * run).splitlines(), "build: 0c1e570 (11312)"])
    assert [r.build for r in behind] == ["11312 (0c1e570)"] * 2
    twice = parse_log([*LOG.format(build="9445 (af6528e6d)").splitlines(), *LOG.format(build="0 (x)").splitlines()])
    assert [r.build for r in twice] == ["9445 (af6528e6d)", "0 (x)"]


@pytest.mark.parametrize("command", ["measure", "verify", "serve", "doctor", "bench speed", "bench quality"])
@pytest.mark.parametrize("flag", [["--llama-build", "latest"], ["--llama-build=b9309"], ["--llama-build"]])
def test_flag_is_inspects_and_fits_alone(command: str, flag: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Commands that run llama.cpp name the one that they run, and those that take the flag."""
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), str(MODEL), *flag])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert f"the llama.cpp that is installed, b{installed_build()}, and predicts for it; `ggufphys inspect`" in error


# -- commands


def test_inspect_answers_for_the_newest(capsys: pytest.CaptureFixture[str]) -> None:
    """`inspect` says in its head line for which build it answers: the newest recorded, or the one asked for."""
    assert main(["inspect", str(MODEL)]) == 0
    assert f"llama.cpp b{LATEST} (newest recorded): n_ctx" in capsys.readouterr().out
    assert main(["inspect", str(MODEL), "--llama-build", "b9309", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["params"]["llama_build"] == 9309
    assert main(["inspect", str(MODEL), "--llama-build", "b11413", "--json", "--as", "library"]) == 0
    mixed = json.loads(capsys.readouterr().out)["memory"]["compute_bytes"]
    assert main(["inspect", str(MODEL), "--llama-build", "pinned", "--json", "--as", "library"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"]["compute_bytes"] < mixed


LOG = """\
build: {build} with GNU 13 for Linux x86_64
llama_model_loader: loaded meta data with 34 key-value pairs and 56 tensors from stdlib-6m-f16.gguf (version GGUF V3)
print_info: arch                  = llama
load_tensors:   CPU_Mapped model buffer size =    11.01 MiB
llama_context: n_seq_max             = 1
llama_context: n_ctx                 = 4096
llama_context: n_batch               = 2048
llama_context: n_ubatch              = 512
llama_context: n_outputs_max         = 1
llama_context:        CPU  output buffer size =     0.02 MiB
llama_kv_cache:        CPU KV buffer size =    12.00 MiB
sched_reserve:        CPU compute buffer size =    11.02 MiB
"""


@pytest.mark.parametrize(
    ("build", "flags", "reason"),
    [
        ("11549 (unknown)", {}, ""),
        ("unknown (unknown)", {}, ""),
        ("11549 (0000000)", {"llama_build": PINNED}, "another build: the log is of b11549, the prediction for b11312"),
        ("1 (unknown)", {"llama_build": PINNED}, "another build: of those recorded b11413 to b11739 fit, the "),
        ("11549 (0000000)", {"llama_build": PINNED, "n_ctx": 1024}, "flags say otherwise than the log: n_ctx"),
    ],
)
def test_a_log_is_predicted_for_its_own_build(build: str, flags: dict[str, int], reason: str) -> None:
    """A b11549 log reconciles by its own build line, and another build is the reason where that alone differs."""
    runs = parse_log(LOG.format(build=build).splitlines())
    with open_gguf(MODEL) as gguf:
        result = reconcile(gguf, runs, flags)
    differing = [line for line in result.lines if line.verdict == "differs"]
    assert bool(differing) == bool(reason)
    assert all(reason in line.reason for line in differing)


def test_no_import_for_a_build() -> None:
    """Predicting for another build imports no more than predicting for the pinned one."""
    code = (
        "import sys; from ggufphys.embedded import MODEL\n"
        "from ggufphys import Params, open_gguf, predict_memory\n"
        "gguf = open_gguf(MODEL); predict_memory(gguf); before = set(sys.modules)\n"
        "[predict_memory(gguf, Params(llama_build=n)) for n in (9309, 10603, 11739)]\n"
        "print(sorted(set(sys.modules) - before))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
