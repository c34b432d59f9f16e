"""Claims as data: what a file of them must say, how verdicts come about, and those that ship."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.hypotheses import speeds
from bench.hypotheses.experiment import SHIPPED, read_experiments
from bench.hypotheses.finding import Finding
from bench.hypotheses.quantities import QUANTITIES
from bench.hypotheses.timing import Timed
from bench.hypotheses.verdict import FAILS, HOLDS, NOT_HERE, counted, deviation, row, verdict
from ggufphys.cli import main
from ggufphys.embedded import MODEL

GOOD = """[[experiment]]
id = "a"
claim = "A 7B as Q8_0 is a file of 7.2 GB"
source = "somebody"
quantity = "file_gb"
setup = { shape = "llama-2-7b", type = "Q8_0" }
predicted = 7.2
tolerance = 0.02
"""
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes a file of experiments."""

    def write_text(text: str) -> Path:
        path = tmp_path / "claims.toml"
        path.write_text(text)
        return path

    return write_text


def with_predicted(write: Write, predicted: str, tolerance: float = 0) -> Any:
    text = GOOD.replace("predicted = 7.2", f"predicted = {predicted}").replace("0.02", str(float(tolerance)))
    (experiment,) = read_experiments(write(text))
    return experiment


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[experiment]]", "[[experiment]", "is not TOML"),
        ("[[experiment]]", "[[experiments]]", "experiments at its top, expected [[experiment]] tables alone"),
        ('source = "somebody"\n', "", "experiment 1 (a): no key 'source'"),
        ('source = "somebody"', "source = 3", "experiment 1 (a): source is 3, expected text"),
        ("tolerance", "tolerence", "experiment 1 (a): unknown key 'tolerence', expected id, claim"),
        ("file_gb", "file_tb", "quantity is 'file_tb', expected one of total_gb, "),
        ("7.2\n", "'7.2'\n", "predicted is '7.2', expected a number, a range [low, high], {above = number} or"),
        ("7.2\n", "[8, 7]\n", "predicted is [8, 7], expected a number"),
        ("7.2\n", "{ over = 3 }\n", "predicted is {'over': 3}, expected a number"),
        ("7.2\n", "nan\n", "predicted is nan, expected a number"),
        ("7.2\n", "true\n", "predicted is True, expected a number"),
        ("0.02", "-1", "tolerance is -1, expected a share"),
        ('shape = "llama-2-7b", ', "", "setup has no 'shape', which file_gb needs"),
        ('type = "Q8_0"', "type = 8", "setup.type is 8, expected str"),
        ('type = "Q8_0"', 'type = "Q8_0", ctx = 3', "setup has 'ctx', which file_gb knows not: expected shape, type"),
        ("setup = {", "setup = 3 # {", "setup is 3, expected a table"),
        ("7.2\n", f"1{'0' * 400}\n", "expected a number, a range"),
        ("0.02", f"1{'0' * 400}", "expected a share"),
        ('"file_gb"\nsetup = {', '"total_gb"\nsetup = { ctx = 0,', "setup.ctx: 0, expected 1 or more"),
        ('"file_gb"\nsetup = {', '"total_gb"\nsetup = { type_k = "q9",', "setup.type_k: 'q9', expected one of f32"),
        ('"file_gb"\nsetup = {', '"total_gb"\nsetup = { n_seq = 300,', "setup.n_seq: 300, expected 1 to 256"),
        (
            'type = "Q8_0"',
            'type = "Q8_1"',
            "experiment 1 (a): setup.type: unknown file type 'Q8_1': expected one of F32",
        ),
        (
            '"file_gb"\nsetup = { shape = "llama-2-7b"',
            '"same_top"\nsetup = { base = "best"',
            "setup.base: unknown file type",
        ),
    ],
)
def test_wrong_file_is_told_by_key(
    write: Write, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    """Exit code 2, and the message says which key of which experiment, what was there and what was expected."""
    path = write(GOOD.replace(old, new, 1))

    assert main(["bench", "hypotheses", str(path)]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert str(path) in message


@pytest.mark.parametrize(("old", "new"), [("llama-2-7b", "llama-9"), ("Q8_0", "Q9_0")])
def test_unknown_shapes_and_types_are_told(
    write: Write, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    """Exit code 2, with the experiment's id and the name that is not known."""
    assert main(["bench", "hypotheses", str(write(GOOD.replace(f'"{old}"', f'"{new}"')))]) == 2
    message = capsys.readouterr().err
    assert "experiment 1 (a): setup." in message
    assert new in message


def test_what_rules_refuse_is_told_before_anything_is_measured(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setup that nothing can be found for ends the run while no minute of measuring can be lost by it."""
    monkeypatch.setattr("bench.hypotheses.speeds.timed", lambda *_, **__: pytest.fail("measured"))
    measured = (
        GOOD.replace('"a"', '"m"')
        .replace("file_gb", "prompt_share")
        .replace('shape = "llama-2-7b", type = "Q8_0"', "n_prompt = 16")
    )
    wrong = GOOD.replace("file_gb", "total_gb").replace("setup = {", "setup = { ctx = 4, n_seq = 200,")

    assert main(["bench", "hypotheses", str(write(measured + wrong))]) == 2
    assert "experiment a: a batch of 4 tokens" in capsys.readouterr().err


def test_names_that_choose_nothing_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt beginning among others is no experiment less in silence, nor is one model twice."""
    assert main(["bench", "hypotheses", "--rules-only", "--only", "size-q8_0,szie"]) == 2
    assert "no experiment's id begins with 'szie'" in capsys.readouterr().err
    assert main(["bench", "hypotheses", "--only", "amx", "--model", str(MODEL), "--model", str(MODEL)]) == 2
    assert "outcomes are told apart by it" in capsys.readouterr().err


def test_an_id_stands_once(write: Write) -> None:
    """Outcomes are told apart by id."""
    with pytest.raises(ValueError, match="id 'a' is there twice"):
        read_experiments(write(GOOD + GOOD))


@pytest.mark.parametrize(
    ("predicted", "tolerance", "value", "interval", "expected"),
    [
        ("7.2", 0.1, 7.9, None, HOLDS),
        ("7.2", 0.1, 7.93, None, FAILS),
        ("[1, 2]", 0, 1.0, None, HOLDS),
        ("[1, 2]", 0, 0.99, None, FAILS),
        ("{ above = 3 }", 0.5, 1e9, None, HOLDS),
        ("{ below = 3 }", 0.0, 3.1, None, FAILS),
        ("{ below = 3 }", 0.0, -1e9, None, HOLDS),
        ("{ below = 3 }", 0.0, 2.9, (2.7, 3.2), NOT_HERE),
        ("{ below = 3 }", 0.0, 2.9, (2.7, 2.95), HOLDS),
        ("{ below = 3 }", 0.0, 3.4, (3.1, 3.6), FAILS),
        ("7.2", 0.1, None, None, NOT_HERE),
    ],
)
def test_verdict_is_where_the_finding_lies(
    write: Write, predicted: str, tolerance: float, value: float | None, interval: Any, expected: str
) -> None:
    """In the range with its tolerance it holds; an interval that reaches over an end of it decides nothing."""
    experiment = with_predicted(write, predicted, tolerance)

    assert verdict(experiment, Finding(value=value, explanation="", interval=interval)) == expected


def test_deviation_is_from_the_nearest_end(write: Write) -> None:
    """Inside a range there is none; outside it is a share of the end that is missed."""
    experiment = with_predicted(write, "[2, 4]")

    assert deviation(experiment, Finding(value=3, explanation="")) == 0
    assert deviation(experiment, Finding(value=5, explanation="")) == pytest.approx(0.25)
    assert deviation(experiment, Finding(value=1, explanation="")) == pytest.approx(-0.5)
    assert deviation(experiment, Finding(value=None, explanation="none")) is None


def test_a_claim_that_holds_in_gib_is_told(write: Write) -> None:
    """Many write GB for GiB: where that makes the difference, the explanation says so, and the verdict stays."""
    finding = Finding(value=28.45, explanation="Found.")

    def said(predicted: str, unit: str) -> str:
        outcome = row(with_predicted(write, predicted, 0.02), finding, measured=False, unit=unit)
        assert outcome["verdict"] == FAILS
        return str(outcome["explanation"])

    assert said("26.44", "GB") == "Found. In GiB, which many call GB, it is 26.5: so read, it holds."
    assert said("20", "GB") == said("26.44", "times the file") == "Found."


def test_verdicts_are_counted() -> None:
    """The most frequent comes first, and one of a kind is said of one."""
    assert counted([FAILS, HOLDS, HOLDS, NOT_HERE, NOT_HERE, NOT_HERE]) == "3 not testable here, 2 hold, 1 fails"


def test_shipped_claims_by_rules(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that need no measurement have their outcome, with the fields that readers of the JSON rely on."""
    assert main(["bench", "hypotheses", "--rules-only", "--json"]) == 0

    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    fields = {"id", "claim", "source", "predicted", "measured", "verdict", "explanation"}
    assert all(fields <= set(row) for row in rows.values())
    assert all(row["explanation"] for row in rows.values())
    assert rows["cache-70b-4k"]["measured"] == pytest.approx(2 * 80 * 1024 * 4096 * 2 / 1e9)
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts["cache-70b-4k"] == FAILS
    assert verdicts["size-q8_0"] == verdicts["8gb-for-7b"] == HOLDS


def test_every_quantity_is_asked_for() -> None:
    """A quantity without a claim would be tested by nobody; `not_here` is for people's own."""
    experiments = read_experiments(SHIPPED)

    assert {e.quantity for e in experiments} == set(QUANTITIES) - {"not_here"}


def test_measured_claims_run(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Timed claims come out with a figure, figures in the explanation, and a limit where one thing takes most of it."""
    tests = (("prompt_share", "{ n_prompt = 64 }"), ("concurrent_cost", "{ n_seq = 2 }"), ("thread_ratio", "{}"))
    head, _, _ = GOOD.partition("quantity")
    text = "".join(
        head.replace('"a"', f'"{name}"') + f'quantity = "{name}"\nsetup = {setup}\npredicted = {{ above = 0 }}\n'
        for name, setup in tests
    )

    assert main(["bench", "hypotheses", str(write(text)), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == [name for name, _ in tests]
    assert all(row["basis"] == "measured" and row["measured"] < 10 for row in rows)
    share, _, threads = rows
    assert 0 < share["measured"] <= 1
    assert share["limit"]
    assert bool(threads["limit"]) == (threads["interval"][1] < 1)  # a busy machine may leave it open


def test_what_is_not_there_is_not_testable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a GPU, or with a build without AMX, claims about them are not testable, and the reason says so."""
    monkeypatch.setattr("bench.hypotheses.speeds.gpus", lambda: ())
    monkeypatch.setattr("bench.hypotheses.speeds.system_info", lambda: "CPU : SSE3 = 1 | AVX2 = 1 | ")

    assert main(["bench", "hypotheses", "--only", "h5-gpu,forgotten,amx", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["verdict"] for row in rows] == [NOT_HERE] * 3
    assert ["no GPU" in row["explanation"] for row in rows] == [True, True, False]
    assert rows[2]["explanation"] == "llama.cpp is built without AMX here; its kernels are AVX2."


def test_what_rounds_do_not_agree_on_is_not_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit is what all rounds show; where they differ, that is said, and no reason is given."""

    def found(setup: dict[str, int], *ratios: float, name: str = "concurrent_cost") -> Finding:
        plain = Timed(tokenize_s=0.0, prompt_s=1.0, choose_s=0.0, step_s=1.0, paged=False)
        pairs = [(plain, replace(plain, step_s=ratio)) for ratio in ratios]
        monkeypatch.setattr(speeds, "_together", lambda *_: pairs)
        monkeypatch.setattr(speeds, "step_ratios", lambda *_, **__: pairs)
        return QUANTITIES[name].find(setup, None)

    assert found({}, 1.1, 1.2, 1.0).limit == "bandwidth"
    assert found({"n_seq": 4}, 3.6, 3.8, 3.4).limit == "compute"
    assert "neither is most of a step" in found({"n_seq": 4}, 1.5, 2.0, 2.5).explanation
    differing = found({}, 1.1, 1.4, 2.0)
    assert differing.limit == ""
    assert differing.explanation.endswith("Rounds differ too much to say what limits it.")
    assert "barrier" in found({}, 1.2, 1.3, name="thread_ratio").explanation
    assert "barrier" not in found({}, 0.9, 1.3, name="thread_ratio").explanation


@pytest.mark.parametrize(
    ("file_type", "said"),
    [
        ("Q8_0", ": all matrices are Q8_0."),
        ("Q6_K", ": all matrices are Q6_K."),
        ("Q4_K_M", ": the type names a mix, 83% Q4_K, 17% Q6_K."),
    ],
)
def test_a_file_is_explained_by_its_own_types(file_type: str, said: str) -> None:
    """Only of a mix it is said to be one, and of which types."""
    found = QUANTITIES["file_gb"].find({"shape": "llama-2-7b", "type": file_type}, None)

    assert found.explanation.endswith(said)


def test_a_cache_is_explained_by_its_types() -> None:
    """Blocks are spoken of where there are some, and each type's own."""
    setup = {"shape": "mistral-7b", "type": "Q4_K_M", "ctx": 4096}

    def said(**types: str) -> str:
        return QUANTITIES["cache_ratio"].find({**setup, **types}, None).explanation

    assert said(type_k="q8_0", type_v="q4_0").endswith(
        ": 32 numbers of Q8_0 take 34 bytes, their scale among them, 32 numbers of Q4_0 take 18 bytes, their scale "
        "among them."
    )
    assert said(type_k="f32", type_v="f32").endswith("for 0.537 as f16.")


@pytest.mark.slow
def test_answers_of_several_users_are_timed(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A server is started, loaded and ended for the claim about answers at several users."""
    head, _, _ = GOOD.partition("quantity")
    setup = "{ users = 2, n_prompt = 16, n_predict = 8 }"
    path = write(f'{head}quantity = "p95_s"\nsetup = {setup}\npredicted = {{ below = 60 }}\n')

    assert main(["bench", "hypotheses", str(path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["verdict"] == HOLDS


def test_nothing_has_no_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing was found the line says so, and not "nothing tokens/s"."""
    path = tmp_path / "claims.toml"
    path.write_text(
        '[[experiment]]\nid = "a"\nclaim = "c"\nsource = "s"\npredicted = 1\n'
        'quantity = "tok_per_s"\nsetup = { file = "/none.gguf" }\n'
    )
    assert main(["bench", "hypotheses", str(path)]) == 0
    assert "predicted 1, found nothing\n" in capsys.readouterr().out


def test_without_llama_cpp_nothing_is_begun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What measures is refused before a first experiment, with what goes without; the rules alone are found."""
    monkeypatch.setattr("server.engine.llama.library.importlib.util.find_spec", lambda name: None)
    begun: list[str] = []
    monkeypatch.setattr("bench.hypotheses.command._outcome", lambda experiment, model: begun.append(experiment.id))

    assert main(["bench", "hypotheses"]) == 2

    assert "llama-cpp-python is not installed" in (said := capsys.readouterr().err)
    assert "--rules-only" in said
    assert not begun
