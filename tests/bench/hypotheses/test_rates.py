"""Claims about tokens a second: what a way of running may say, how it is measured, and what is predicted of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.hypotheses import rates, ways
from bench.hypotheses.finding import Finding
from bench.hypotheses.quantities import QUANTITIES
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.params import Device
from ggufphys.speed.published import data_sheet, published_machine

HEAD = '[[experiment]]\nid = "a"\nclaim = "It is fast"\nsource = "somebody"\npredicted = { above = 0 }\n'
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes one experiment, of a quantity and a setup."""

    def write_text(rest: str) -> Path:
        path = tmp_path / "claims.toml"
        path.write_text(HEAD + rest)
        return path

    return write_text


@pytest.mark.parametrize(
    ("quantity", "setup", "said"),
    [
        ("tok_per_s", '{ flags = "-t many" }', "setup: flags: argument -t/--threads: 'many' is not a whole number"),
        ("tok_per_s", '{ flags = "-tb 4" }', "setup: flags: -tb has no rule here"),
        ("tok_per_s", '{ flags = "-ctv q4_0 -ctk q9" }', "setup: flags: argument -ctk"),
        ("tok_per_s", '{ flags = "-t \'4" }', "setup: No closing quotation"),
        ("tok_per_s", '{ phase = "idle" }', "phase is 'idle', expected decode or prefill"),
        ("tok_per_s", '{ phase = "prefill", n_seq = 2 }', "n_seq with prefill: prompts are read one after the other"),
        ("tok_per_s", "{ users = 2, n_seq = 2 }", "n_seq beside users"),
        ("tok_per_s", '{ users = 2, phase = "decode" }', "phase beside users"),
        ("tok_per_s", "{ n_predict = 8 }", "n_predict without users"),
        ("tok_per_s", '{ flags = "-c 512", n_prompt = 500 }', "a context of 512 cells a sequence, expected 596"),
        ("tok_per_s", '{ flags = "-c 1024 -np 4", n_prompt = 200 }', "a context of 256 cells a sequence, expected 296"),
        ("tok_per_s", '{ flags = "-c 256 -kvu", n_seq = 4 }', "a context of 256 cells a sequence, expected 512"),
        ("tok_per_s", '{ type = "Q8_1" }', "setup.type: unknown file type 'Q8_1'"),
        ("tok_per_s", '{ shape = "mistral-7b" }', "setup has 'shape', which tok_per_s knows not"),
        ("tok_per_s", "{ n_seq = 300 }", "setup.n_seq: 300, expected 1 to 256"),
        ("tok_ratio", '{ type = "Q8_0" }', "setup has type, expected a table each for of and by"),
        ("tok_ratio", "{ of = {}, by = 3 }", "setup.by is 3, expected a table"),
        ("tok_ratio", '{ of = {}, by = { flags = "-x" } }', "setup.by: flags: -x has no rule here"),
        ("tok_ratio", "{ of = {}, by = { n_seq = true } }", "setup.by.n_seq is True, expected int"),
        ("predicted_tok_per_s", '{ type = "Q8_0" }', "setup has no 'shape', which predicted_tok_per_s needs"),
        (
            "predicted_tok_per_s",
            '{ shape = "mistral-7b", type = "Q8_0", on = "m9" }',
            "setup: no data sheet of 'm9' is known",
        ),
        (
            "predicted_tok_ratio",
            '{ of = { shape = "mistral-7b", type = "Q8_0" }, by = { type = "Q8_0" } }',
            "setup.by has no 'shape'",
        ),
    ],
)
def test_a_way_that_cannot_be_is_told(
    write: Write, capsys: pytest.CaptureFixture[str], quantity: str, setup: str, said: str
) -> None:
    """Exit code 2 before anything runs, with the experiment and what is wrong with which of its ways."""
    assert main(["bench", "hypotheses", str(write(f'quantity = "{quantity}"\nsetup = {setup}\n'))]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert "experiment 1 (a): " in message


def test_a_way_is_run_as_its_flags_say() -> None:
    """Flags become parameters; sequences and context are as many and as long as are timed where they leave it open."""
    params = ways.params_of({"flags": "-t 3 -ctk q8_0 -fa on", "n_seq": 4, "n_prompt": 200})

    assert (params.n_threads, params.type_k, params.type_v, params.flash_attn) == (3, "q8_0", "f16", "on")
    assert (params.n_seq_max, params.n_outputs_max) == (4, 4)
    assert params.n_ctx == 4 * 512
    assert ways.params_of({"flags": "-c 8k -np 2"}).n_ctx == 8192


def fake(monkeypatch: pytest.MonkeyPatch, rate_of: Callable[[dict[str, Any]], float], busy: float = 0.0) -> list[Any]:
    """Let a function say tokens a second of a configuration; what was asked, in order."""
    asked: list[Any] = []

    def measured(config: dict[str, Any]) -> list[dict[str, Any]]:
        asked.append(config)
        return [{"tok_per_s": rate_of(config), "busy": busy, "gauge_s": 1.0}]

    monkeypatch.setattr(rates, "measured", measured)
    monkeypatch.setattr(rates, "kept_machine", lambda: None)
    return asked


def test_two_ways_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What disturbs the machine disturbs both; the ratio is the rounds' median, and its spread decides the verdict."""
    paces = iter((1.0, 1.0, 0.5, 0.5, 0.8, 0.8))
    asked = fake(monkeypatch, lambda config: 100 * config["params"]["n_threads"] * next(paces))

    found = rates.tok_ratio({"of": {"flags": "-t 3", "n_prompt": 64}, "by": {"flags": "-t 2"}}, None)

    assert [config["params"]["n_threads"] for config in asked] == [3, 2, 3, 2, 3, 2]
    assert asked[0]["questions"] == [{"kind": "batch", "n_seqs": 1, "depth": 64}]
    assert found.value == pytest.approx(1.5)
    assert found.interval == pytest.approx((1.5, 1.5))
    assert found.explanation.startswith(
        f"{MODEL.name}, -t 3: 240 tokens a second (150 to 300). {MODEL.name}, -t 2: 160"
    )
    assert "Their ratio is 1.5 (1.50 to 1.50 in 3 rounds)." in found.explanation


def test_a_prompt_is_read_when_prefill_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`phase = "prefill"` times the prompt and nothing behind it, and a busy machine is told."""
    asked = fake(monkeypatch, lambda _: 77.0, busy=0.5)

    found = rates.tok_per_s({"phase": "prefill", "n_prompt": 48}, None)

    assert asked[0]["questions"] == [{"kind": "prefill", "n_tokens": 48}]
    assert Path(asked[0]["path"]) == MODEL.resolve()
    assert found.value == 77
    assert "a prompt of 48: 77 tokens a second" in found.explanation
    assert found.explanation.endswith("Something else had the processors for up to 50% of the time.")


def test_rates_say_what_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this machine's rates predict what was measured, they say why; where they do not, nothing is said of it."""
    machine = data_sheet(published_machine("ryzen-9950x"))
    fake(monkeypatch, lambda _: 1e-3)
    monkeypatch.setattr(rates, "kept_machine", lambda: machine)
    assert not rates.tok_per_s({}, None).limit

    predicted = float(rates.tok_per_s({}, None).explanation.split("rates ")[1].split(")")[0])
    fake(monkeypatch, lambda _: predicted)
    monkeypatch.setattr(rates, "kept_machine", lambda: machine)
    found = rates.tok_per_s({}, None)
    assert found.limit
    assert found.explanation.endswith(rates.WHY[found.limit])


def test_users_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `users` our server is loaded, with the flags that were given, and its tokens a second count."""
    asked: list[Any] = []

    def load_levels(model: Path, levels: Any, n_prompt: int, n_predict: int, *, flags: Any) -> list[dict[str, float]]:
        asked.append((model, levels, n_prompt, n_predict, flags))
        return [{"tok_per_s": 40.0 if levels == (4,) else 20.0}]

    monkeypatch.setattr(rates, "load_levels", load_levels)
    setup = {"of": {"users": 4, "flags": "-ctk q8_0"}, "by": {"users": 1, "n_predict": 8}}

    found = rates.tok_ratio(setup, None)

    assert found.value == 2
    assert asked[:2] == [(MODEL, (4,), 128, 64, ["-ctk", "q8_0"]), (MODEL, (1,), 128, 8, [])]
    assert "-ctk q8_0, 4 users: 40 tokens a second" in found.explanation


def test_layers_for_a_gpu_want_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim about layers on a GPU is not tested on the CPU in silence; with `-ngl 0` it is one about the CPU."""
    fake(monkeypatch, lambda _: 5.0)
    monkeypatch.setattr(rates, "gpus", lambda: ())
    assert rates.tok_per_s({"flags": "-ngl 99"}, None) is rates.NO_GPU
    assert rates.tok_ratio({"of": {}, "by": {"flags": "-ngl all"}}, None) is rates.NO_GPU
    assert rates.tok_per_s({"flags": "-ngl 0"}, None).value == 5

    monkeypatch.setattr(rates, "gpus", lambda: (Device(name="Vulkan0", memory_bytes=1 << 34),))
    asked = fake(monkeypatch, lambda _: 5.0)
    assert rates.tok_per_s({"flags": "-ngl 99"}, None).value == 5
    assert [device["name"] for device in asked[0]["params"]["devices"]] == ["Vulkan0"]


def test_files_of_their_own_are_asked_once(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An experiment that names its files is the same with any --model; one that is not there is told as its verdict."""
    asked = fake(monkeypatch, lambda _: 5.0)
    other = tmp_path / "other.gguf"
    other.write_bytes(MODEL.read_bytes())
    rest = f'quantity = "tok_ratio"\nsetup = {{ of = {{ file = "{other}" }}, by = {{ file = "{MODEL}" }} }}\n'

    assert main(["bench", "hypotheses", str(write(rest)), "--model", str(MODEL), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["measured"] == 1
    assert row["explanation"].startswith("other.gguf: 5 tokens a second")
    assert len(asked) == 6

    other.unlink()
    assert main(["bench", "hypotheses", str(write(rest)), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["verdict"] == "not testable here"
    assert row["explanation"] == f"{other}: No such file or directory"


def test_shapes_are_predicted_on_machines_by_their_data_sheets() -> None:
    """Rates of two machines leave a range; of one machine they are wrong for both ways alike, so there is none."""
    way = {"shape": "llama-3.1-8b", "type": "Q4_K_M", "on": "m2-ultra"}
    alone = rates.predicted_tok_per_s(way, None)
    assert alone.interval is not None
    assert alone.value is not None
    assert alone.interval[0] < alone.value < alone.interval[1]
    assert "the data sheet of Apple M2 Ultra" in alone.explanation

    other = rates.predicted_tok_ratio({"of": way, "by": {**way, "on": "m2-pro"}}, None)
    assert other.interval is not None
    assert other.value is not None
    assert 2 < other.value < 4  # its memory is four times as fast, and a node takes as long
    same = rates.predicted_tok_ratio({"of": way, "by": {**way, "type": "F16"}}, None)
    assert same.interval is None
    assert same.value is not None
    assert 2 < same.value < 3.5  # 16 bits a weight for 4.9


def test_without_rates_of_this_machine_nothing_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape on a machine that was not calibrated is not testable, and the reason names the command."""
    monkeypatch.setattr(rates, "kept_machine", lambda: None)
    way = {"shape": "mistral-7b", "type": "Q4_K_M"}

    for found in (rates.predicted_tok_per_s(way, None), rates.predicted_tok_ratio({"of": way, "by": way}, None)):
        assert found == Finding(value=None, explanation=rates.NO_RATES)


def test_measured_and_predicted_ways_have_the_same_phases() -> None:
    """What is timed can be predicted, so that a claim of a file can be made one of a shape by its keys alone."""
    timed, sheet = QUANTITIES["tok_per_s"].setup, QUANTITIES["predicted_tok_per_s"].setup

    assert set(timed) - set(sheet) == {"file", "users", "n_predict"}
    assert set(sheet) - set(timed) == {"shape", "on"}


def test_a_ratio_runs(write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In child processes on the embedded model: several sequences behind prompts of their own, beside one."""
    monkeypatch.setattr(rates, "ROUNDS", 1)
    setup = "{ of = { n_seq = 2, n_prompt = 16 }, by = { n_prompt = 16, flags = '-t 1' } }"

    assert main(["bench", "hypotheses", str(write(f'quantity = "tok_ratio"\nsetup = {setup}\n')), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["verdict"] == "holds"
    assert row["basis"] == "measured"
    assert "2 sequences: " in row["explanation"]
