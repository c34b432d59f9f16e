"""Latency budgets on a machine whose rates are round numbers, and what would make a model faster."""

from math import isclose

import pytest

from ggufphys import GGUFFile, Params, open_gguf
from ggufphys.graph.devices.runs import Runs
from ggufphys.plan.budget import Budget, judge, latency, parse_budget
from ggufphys.plan.faster import explain_speed
from ggufphys.speed.predict import Speeds
from ggufphys.speed.rates import Machine, Processor
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    """A llama of six layers."""
    path = tmp_path_factory.mktemp("budget") / "llama.gguf"
    write_model(path, llama_metadata(block_count=6, context_length=8192), llama_tensors(n_layer=6))
    with open_gguf(path) as gguf:
        return gguf


def machine(*n_threads: int) -> Machine:
    """A machine of a gigabyte and a hundred GFLOP a second and thread."""
    hosts = [
        Processor(name="CPU", n_threads=n, streams=((0, n * 1e9),), flops_per_s=n * 1e11, band=(0.8, 1.25))
        for n in n_threads
    ]
    return Machine(name="m", basis="calibrated", source="a test", processors=hosts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200 in, 100 out, p95 1.5 s", Budget(n_in=200, n_out=100, percentile=95, limit_s=1.5)),
        ("2k tokens in, 100 tokens out, p95 1500 ms", Budget(n_in=2048, n_out=100, percentile=95, limit_s=1.5)),
        ("2,000in 1out P99.9 250ms", Budget(n_in=2000, n_out=1, percentile=99.9, limit_s=0.25)),
    ],
)
def test_budgets_are_read(text: str, expected: Budget) -> None:
    """A budget is read as people write it."""
    assert parse_budget(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        ", in, 1 out, p95 1 s",
        "\u0662 in, 1 out, p95 1 s",
        "0 in, 1 out, p95 1 s",
        "1 in, 1 out, p95 1..5 s",
        "1 in, 1 out, 2 s",
    ],
)
def test_other_texts_are_no_budgets(text: str) -> None:
    """What is no budget is an error that shows the form."""
    with pytest.raises(ValueError, match="--budget"):
        parse_budget(text)


def test_as_many_users_as_the_budget_holds_for(llama: GGUFFile) -> None:
    """Latency is each user's prompt and the steps that all share; the verdict counts the users within the limit."""
    speeds = Speeds(Runs(llama).run(Params(n_ctx=4096)), machine(1), 1)
    budget = Budget(n_in=200, n_out=100, percentile=95, limit_s=0.0)
    three = latency(speeds, budget, 3)
    by_hand = 3 * speeds.prefill(200).seconds.value + 100 * speeds.decode(3, 250).seconds.value
    verdict = judge(speeds, Budget(n_in=200, n_out=100, percentile=95, limit_s=three.value))

    assert isclose(three.value, by_hand)
    assert verdict.users == 3
    assert verdict.certain_users < 3
    assert not judge(speeds, Budget(n_in=200, n_out=100, percentile=95, limit_s=three.value / 10)).holds
    with pytest.raises(ValueError, match="ctx-size"):
        judge(speeds, Budget(n_in=4000, n_out=100, percentile=95, limit_s=1.0))


def test_changes_are_those_that_help(llama: GGUFFile) -> None:
    """With twice the rates on two threads, two threads are twice as fast; shares are no more than all."""
    found = explain_speed(Runs(llama), Params(n_ctx=4096, n_threads=1), machine(1, 2))
    by_flags = {change.flags: change for change in found.changes}

    assert found.changes[0].flags == "-t 2"
    assert by_flags["-t 2"].decode == pytest.approx(2, rel=1e-3)
    assert isclose(sum(found.kinds.values()), 1)
    assert 0 < sum(share.of_seconds for share in found.shares) <= 1
    assert all(max(change.decode or 0, change.prefill) > 1 for change in found.changes)
