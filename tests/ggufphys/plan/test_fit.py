"""What `fit` chooses fits, and one step more does not: by predictions that are made anew."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggufphys import Device, GGUFFile, Params, open_gguf, predict_memory
from ggufphys.memory.predict import Predictor
from ggufphys.params import HOST
from ggufphys.plan.divide import LayerCosts, divide, stretches
from ggufphys.plan.fit import Budget, Fit, Fitter, Trial
from ggufphys.plan.fit_help import helps
from ggufphys.plan.fit_space import ORDERS, TYPES, Prefer
from ggufphys.plan.search import largest
from tests.ggufphys.models import shape_header, tiny_llama

MIB = 1 << 20
SHAPES = ("llama-3.1-8b", "gemma-3-4b", "qwen3-30b-a3b", "deepseek-v2-lite", "mamba2-2.7b")
PREFERENCES = st.sampled_from(tuple(ORDERS))
SLOW = settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@contextmanager
def shape(tmp_path: Path, name: str) -> Iterator[GGUFFile]:
    """The header of a published shape."""
    with open_gguf(shape_header(tmp_path / f"{name}.gguf", name)) as gguf:
        yield gguf


def devices(*mib: int) -> tuple[Device, ...]:
    """Devices of so many MiB."""
    return tuple(Device(name=f"CUDA{i}", memory_bytes=n * MIB) for i, n in enumerate(mib))


def over(gguf: GGUFFile, params: Params, budget: Budget) -> int:
    """By how much a run does not fit anywhere, predicted anew; 0 or less when it fits."""
    prediction = predict_memory(gguf, params)
    amounts = [
        device.total_bytes + budget.margin(i, device.memory_bytes or 0) - (device.memory_bytes or 0)
        for i, device in enumerate(prediction.devices[1:])
        if device.total_bytes
    ]
    if budget.ram_bytes is not None:
        amounts.append(prediction.process_bytes - budget.ram_bytes)
    return max(amounts, default=0)


def check(gguf: GGUFFile, fit: Fit, budget: Budget) -> None:
    """It fits; and each goal that is not at its end was tried one step further, and did not."""
    params = fit.trial.params
    assert over(gguf, params, budget) <= 0
    for goal, trial in fit.next_steps.items():
        assert over(gguf, trial.params, budget) > 0, goal
    n_stream = 1 if params.kv_unified else params.n_seq_max
    n_ctx_train = Predictor(gguf).h.n_ctx_train * n_stream
    if params.n_ctx < n_ctx_train:
        further = min(params.n_ctx + 256 * n_stream, n_ctx_train)
        assert fit.next_steps["n_ctx"].params.n_ctx == further
        assert over(gguf, replace(params, n_ctx=further), budget) > 0
    if params.devices and (params.n_gpu_layers < fit.n_layers or params.n_cpu_moe):
        more = fit.next_steps["level"].params
        assert (more.n_gpu_layers, -more.n_cpu_moe) > (params.n_gpu_layers, -params.n_cpu_moe)
        assert more.n_gpu_layers - params.n_gpu_layers in (0, 1)
    if params.type_k in TYPES[:-1] and "types" in fit.next_steps:
        assert TYPES.index(fit.next_steps["types"].params.type_k) > TYPES.index(params.type_k)
        assert over(gguf, fit.next_steps["types"].params, budget) > 0


@pytest.mark.parametrize("name", SHAPES)
@SLOW
@given(data=st.data(), prefer=PREFERENCES)
def test_one_device(tmp_path: Path, name: str, data: st.DataObject, prefer: Prefer) -> None:
    """On one device of any size, with main memory limited or not."""
    budget = Budget(
        margins=(data.draw(st.sampled_from((0, 256 * MIB))),),
        ram_bytes=data.draw(st.none() | st.integers(500, 24_000).map(lambda n: n * MIB)),
    )
    params = Params(
        n_seq_max=data.draw(st.sampled_from((1, 4))),
        n_outputs_max=4,
        kv_unified=data.draw(st.booleans()),
        devices=devices(data.draw(st.integers(300, 24_000))),
    )
    with shape(tmp_path, name) as gguf:
        fit = Fitter(Predictor(gguf), params, budget).fit(prefer)
        if fit.fits:
            check(gguf, fit, budget)
        else:
            assert budget.ram_bytes is not None, "with enough main memory there is always a way"
            assert over(gguf, fit.trial.params, budget) > 0
        layers = replace(fit.trial.params, n_gpu_layers=fit.trial.params.n_gpu_layers + 1, n_cpu_moe=0)
        if fit.fits and fit.trial.params.devices and fit.trial.params.n_gpu_layers < fit.n_layers:
            assert over(gguf, layers, budget) > 0


@pytest.mark.parametrize("name", SHAPES)
@SLOW
@given(sizes=st.lists(st.integers(1_100, 16_000), min_size=2, max_size=3), prefer=PREFERENCES)
def test_several_devices(tmp_path: Path, name: str, sizes: list[int], prefer: Prefer) -> None:
    """On devices of any sizes, which share the layers so that each has its margin."""
    params, budget = Params(devices=devices(*sizes), n_outputs_max=1), Budget()
    with shape(tmp_path, name) as gguf:
        fit = Fitter(Predictor(gguf), params, budget).fit(prefer)
        assert fit.fits
        check(gguf, fit, budget)


@pytest.mark.parametrize("name", SHAPES)
@SLOW
@given(ram=st.integers(200, 30_000), prefer=PREFERENCES)
def test_no_device(tmp_path: Path, name: str, ram: int, prefer: Prefer) -> None:
    """In main memory alone; where nothing fits, each thing that would help does."""
    params, budget = Params(n_outputs_max=1), Budget(ram_bytes=ram * MIB)
    with shape(tmp_path, name) as gguf:
        fitter = Fitter(Predictor(gguf), params, budget)
        fit = fitter.fit(prefer)
        if fit.fits:
            check(gguf, fit, budget)
            return
        assert budget.ram_bytes is not None
        help_ = next(h for h in helps(fitter) if h.kind == "memory" and h.more_bytes)
        more = (help_.more_bytes or {})[HOST]
        enough = replace(budget, ram_bytes=budget.ram_bytes + more)
        assert Fitter(Predictor(gguf), params, enough).fit(prefer).fits
        less = replace(budget, ram_bytes=budget.ram_bytes + more - MIB)
        assert not Fitter(Predictor(gguf), params, less).fit(prefer).fits


@settings(SLOW, max_examples=3)
@given(first=st.integers(60, 250), second=st.integers(60, 250))
def test_no_other_division(tmp_path: Path, first: int, second: int) -> None:
    """Where two devices hold no more layers as they are divided, they hold no more in any division."""
    budget = Budget(margins=(0,))
    params = Params(devices=devices(first, second), n_outputs_max=1)
    with shape(tmp_path, "llama-110m") as gguf:
        fit = Fitter(Predictor(gguf), params, budget, fixed={"type_k", "type_v", "n_ubatch"}).fit()
        assert fit.fits
        chosen = fit.trial.params
        if chosen.n_gpu_layers == fit.n_layers:
            return
        n = chosen.n_gpu_layers + 1
        divisions = [(float(i), float(n - i)) for i in range(n + 1)]
        assert all(
            over(gguf, replace(chosen, n_gpu_layers=n, tensor_split=division), budget) > 0 for division in divisions
        )


def test_order_of_preference(tmp_path: Path) -> None:
    """`speed` keeps layers on the device, `ctx` the context, `quality` the cache as it is; each at the others' cost."""
    params = Params(devices=devices(8 << 10), n_outputs_max=1)
    with shape(tmp_path, "llama-3.1-8b") as gguf:
        speed, ctx, quality = (
            Fitter(Predictor(gguf), params, Budget()).fit(prefer).trial.params for prefer in ("speed", "ctx", "quality")
        )
        tight = Params(devices=devices(6100), n_outputs_max=1)
        tight_speed, tight_quality = (
            Fitter(Predictor(gguf), tight, Budget(), n_ctx_min=16384).fit(prefer).trial.params
            for prefer in ("speed", "quality")
        )

    assert (speed.n_gpu_layers, quality.n_gpu_layers) == (33, 33)
    assert ctx.n_ctx == 131_072 > speed.n_ctx
    assert ctx.n_gpu_layers < 33
    assert (speed.type_k, quality.type_k) == ("f16", "f16")
    assert (tight_quality.type_k, tight_speed.type_k) == ("f16", "q8_0")
    assert tight_quality.n_gpu_layers < tight_speed.n_gpu_layers


def test_experts_go_first(tmp_path: Path) -> None:
    """Before a layer leaves the devices all experts do, from the first layer on."""
    with shape(tmp_path, "qwen3-30b-a3b") as gguf:
        for mib, all_layers in ((12_000, True), (4_000, True), (1_800, False)):
            chosen = (
                Fitter(Predictor(gguf), Params(devices=devices(mib)), Budget(margins=(1024 * MIB,))).fit().trial.params
            )
            assert (chosen.n_gpu_layers == 49) is all_layers
            assert chosen.n_cpu_moe == 48 or all_layers


def test_fixed_is_fixed(tmp_path: Path) -> None:
    """What the user chose is not touched, and nothing fits rather than that."""
    chosen = Params(
        n_ctx=20_000, type_k="q5_1", type_v="q8_0", n_ubatch=1024, n_gpu_layers=20, devices=devices(8 << 10)
    )
    fixed = {"n_ctx", "type_k", "type_v", "n_ubatch", "n_gpu_layers"}
    with shape(tmp_path, "llama-3.1-8b") as gguf:
        fit = Fitter(Predictor(gguf), chosen, Budget(), fixed=fixed).fit()
        assert fit.fits
        assert fit.trial.params == chosen
        assert not fit.next_steps
        no_fit = Fitter(Predictor(gguf), replace(chosen, n_gpu_layers=33, n_ctx=50_000), Budget(), fixed=fixed)
        assert not no_fit.fit().fits
        kinds = {h.kind: h for h in helps(no_fit)}
        assert set(kinds) == {"context", "memory", "file_type"}
        shorter = replace(chosen, n_gpu_layers=33, n_ctx=kinds["context"].n_ctx or 0)
        assert over(gguf, shorter, Budget()) <= 0 < over(gguf, replace(shorter, n_ctx=shorter.n_ctx + 256), Budget())


def test_more_on_a_device_helps(tmp_path: Path) -> None:
    """When main memory is short, more on a device that holds layers instead helps as much as is said."""
    budget = Budget(ram_bytes=3 << 30)
    params = Params(devices=devices(2 << 10), n_outputs_max=1)
    with shape(tmp_path, "llama-3.1-8b") as gguf:
        fitter = Fitter(Predictor(gguf), params, budget)
        assert not fitter.fit().fits
        more = [h.more_bytes for h in helps(fitter) if h.more_bytes]
        assert [set(place) for place in more] == [{HOST}, {"CUDA0"}]
        for places in more:
            for name, nbytes in places.items():
                assert fitter.with_more(name, nbytes).fit().fits
                assert not fitter.with_more(name, nbytes - MIB).fit().fits


@pytest.mark.parametrize(
    ("params", "budget", "message"),
    [
        (Params(devices=(Device(name="CUDA0"),)), Budget(), "how much memory CUDA0 has is not known"),
        (Params(), Budget(), "nothing to fit into"),
        (Params(devices=devices(1, 1)), Budget(margins=(1, 2, 3)), "3 margins for 2 devices"),
        (Params(flash_attn="off", type_v="q8_0"), Budget(ram_bytes=1 << 30), "needs flash attention"),
    ],
)
def test_refusals(tmp_path: Path, params: Params, budget: Budget, message: str) -> None:
    """Questions without an answer say what is missing."""
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf")) as gguf, pytest.raises(ValueError, match=message):
        Fitter(Predictor(gguf), params, budget, fixed={"type_v"})


@pytest.mark.parametrize("name", SHAPES)
def test_costs_are_the_predictors(tmp_path: Path, name: str) -> None:
    """The costs by which layers are divided add up to model and context bytes on each device."""
    params = Params(devices=devices(16_000, 8_000), n_ctx=4096, n_cpu_moe=5, tensor_split=(1, 1))
    with shape(tmp_path, name) as gguf:
        predictor = Predictor(gguf)
        prediction = predictor.predict(params)
        items = LayerCosts(predictor, params).items(99, 5, prediction.context)
        n = sum(home == "CUDA0" for home in predictor.placed(params).placement.layers)
        sums = stretches(items, (n, len(items) - n))
        rope = sum(t.nbytes or 0 for t in gguf.tensors if t.name.startswith("rope_"))  # a copy on each device
    for device, expected in zip(prediction.devices[1:], sums, strict=True):
        assert device.model_bytes + device.context_bytes - expected == rope


@given(
    items=st.lists(st.integers(0, 50), min_size=1, max_size=7),
    rooms=st.lists(st.integers(1, 100), min_size=1, max_size=3),
    overhead=st.integers(0, 20),
)
def test_divide_is_the_best(items: list[int], rooms: list[int], overhead: int) -> None:
    """No other division leaves the fullest device emptier."""

    def fullest(counts: tuple[int, ...]) -> float:
        sums = stretches(items, counts)
        return max(
            ((s + overhead) / room for s, count, room in zip(sums, counts, rooms, strict=True) if count), default=0
        )

    found = divide(items, rooms, [overhead] * len(rooms))
    n = len(items)
    cuts = combinations_with_replacement(range(n + 1), len(rooms) - 1)
    every = [tuple(b - a for a, b in zip((0, *cut), (*cut, n), strict=True)) for cut in cuts]
    assert sum(found) == n
    assert fullest(found) == pytest.approx(min(map(fullest, every)), rel=1e-6)


@given(border=st.integers(0, 400), top=st.integers(0, 400), slope=st.integers(1, 1000), bend=st.integers(0, 400))
def test_largest_finds_the_border(border: int, top: int, slope: int, bend: int) -> None:
    """The last step that fits is found whether bytes grow evenly or not, in few looks."""
    looks: dict[int, int] = {}

    def over(step: int) -> int:
        looks[step] = slope * (step - border) + (50 * slope if step > max(bend, border) else 0)
        return looks[step]

    assert largest(0, top, over) == min(border, top)
    assert len(looks) <= 20


def test_trial_names_the_tightest_place(tmp_path: Path) -> None:
    """Of several places the one that is most over, or nearest to it, is named."""
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf")) as gguf:
        fitter = Fitter(Predictor(gguf), Params(devices=devices(2000)), Budget(ram_bytes=1 << 40))
        trial: Trial = fitter.fit().trial
    assert trial.tightest.name == "CUDA0"
    assert [place.name for place in trial.places] == [HOST, "CUDA0"]
    assert all(place.left_bytes - place.margin_bytes == -place.over_bytes for place in trial.places)
