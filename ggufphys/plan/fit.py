"""How can this model be run with so much memory? The best settings whose prediction fits, and where a step more fails.

A choice is a step for each goal (`fit_space`). In the order of preference each goal goes as far as it can while those
behind it are at their least; where several devices share the layers, they are divided so that all are about as full
(`divide`). At the end every goal is tried one step further: what `next_steps` say was predicted, and does not fit.

Memory is not quite monotone (the allocator may find a better place for larger tensors), so "one step more" is exactly
what is promised; that nothing further on fits is not.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

from ggufphys.frozen import dataclass, replace
from ggufphys.graph.allocating.traced import collection_paused
from ggufphys.graph.devices.placement import place_layers, used_devices
from ggufphys.memory.predict import Predictor
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.params import HOST, Params
from ggufphys.plan.divide import LayerCosts, divide, stretches
from ggufphys.plan.fit_space import GOALS, ORDERS, Goal, Prefer, least_steps, scales
from ggufphys.plan.search import largest

MARGIN_BYTES: Final = 1 << 30  # common/common.h, fit_params_target
_MARGIN_SHARE: Final = 4  # of little memory no more than a quarter
_ROUNDS: Final = 4  # of dividing layers by what the last division showed


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be used: `margins` bytes stay free on each of the devices, the process may have `ram_bytes` (None: any).

    What is free on a device is its own `memory_bytes`. `ram_margin_bytes` of main memory stay free.
    """

    margins: tuple[int, ...] = ()
    ram_bytes: int | None = None
    ram_margin_bytes: int = 0

    def margin(self, index: int, memory_bytes: int) -> int:
        """What stays free on device `index`, which has `memory_bytes`; one margin goes for all."""
        return self.margins[index if len(self.margins) > 1 else 0] if self.margins else default_margin(memory_bytes)


def default_margin(memory_bytes: int) -> int:
    """What stays free when nobody says."""
    return min(MARGIN_BYTES, memory_bytes // _MARGIN_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One device, or main memory: what is needed there, what there is, what is to stay free of it."""

    name: str
    needed_bytes: int
    memory_bytes: int
    margin_bytes: int = 0

    @property
    def left_bytes(self) -> int:
        """What is left, the margin included; negative when there is too little."""
        return self.memory_bytes - self.needed_bytes

    @property
    def over_bytes(self) -> int:
        """By how much it does not fit; 0 or less when it does."""
        return self.margin_bytes - self.left_bytes

    @property
    def margin_alone(self) -> bool:
        """Would it fit if nothing had to stay free?"""
        return self.over_bytes > 0 and self.left_bytes >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A way to run it, predicted."""

    params: Params
    prediction: MemoryPrediction
    places: tuple[Place, ...]

    @property
    def fits(self) -> bool:
        """Does it fit everywhere?"""
        return all(place.over_bytes <= 0 for place in self.places)

    @property
    def tightest(self) -> Place:
        """Where it is over the most, or nearest to it."""
        return max(self.places, key=lambda place: place.over_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The best way to run it, or when nothing fits the one that takes the least; and one step more for each goal.

    A goal whose scale has ended (all layers, f16, ...) has no next step.
    """

    choice: "Choice"
    trial: Trial
    prefer: Prefer
    n_layers: int  # that could be offloaded, the output being one
    next_steps: Mapping[Goal, Trial]

    @property
    def fits(self) -> bool:
        """Was there a way?"""
        return self.trial.fits


@dataclass(frozen=True, slots=True)
class Choice:
    """A step for each goal, by number; without a level, the best that the devices hold."""

    level: int | None
    repack: int = 0
    mmap: int = 0
    types: int = 0
    n_ubatch: int = 0
    n_ctx: int = 0


LEAST: Final = Choice(None)


class Fitter:
    """Trials of one model within one budget, each predicted once.

    Args:
        predictor: the model's.
        params: what is not chosen, devices with their free memory included.
        budget: how much there is.
        fixed: the fields of `params` that the user has chosen.
        n_ctx_min: the least context, all sequences together; 0: 4096 each.
        predict: the model with all that is attached to it; the predictor's own if not given.

    Raises:
        ValueError: a device's memory is not known, there is no limit at all, or llama.cpp would refuse the parameters.
    """

    def __init__(
        self,
        predictor: Predictor,
        params: Params,
        budget: Budget,
        *,
        fixed: Collection[str] = (),
        n_ctx_min: int = 0,
        predict: Callable[[Params], MemoryPrediction] | None = None,
    ) -> None:
        self.devices = used_devices(params)
        _check(params, budget)
        self.predictor = predictor
        self.predict = predict or predictor.predict
        self.params = params
        self.budget = budget
        self.fixed = frozenset(fixed)
        self.n_ctx_min = n_ctx_min
        self.costs = LayerCosts(predictor, params)
        self.scales = scales(predictor, params, fixed, self.costs, n_ctx_min=n_ctx_min)
        self._trials: dict[Choice, Trial] = {}
        self._held: dict[int, tuple[int, ...]] = {}  # by the number of layers, the division that has held them last
        self._judged: dict[Params, Trial] = {}
        self._divides = len(self.devices) > 1 and params.split_mode == "layer" and "tensor_split" not in self.fixed
        self._rooms = [
            device.memory_bytes - budget.margin(i, device.memory_bytes) for i, device in enumerate(self.devices)
        ]
        self._overheads = [0] * len(self.devices)  # what each was last seen to need beside its layers

    @collection_paused()
    def fit(self, prefer: Prefer = "speed") -> Fit:
        """The best choice in the order of preference."""
        choice = Choice(None, **least_steps(self.scales, prefer))
        if not self.at(choice).fits:
            choice = LEAST
            if not self.at(choice).fits:
                return self.answer(choice, prefer)
        for goal in ORDERS[prefer]:
            choice = self.furthest(choice, goal)
        while more := next((more for more in self._one_more(choice).values() if self.at(more).fits), None):
            choice = more
        return self.answer(choice, prefer)

    def at(self, choice: Choice) -> Trial:
        """The trial of a choice."""
        if choice.level is None:
            choice = self.furthest(choice, "level")
        trial = self._trials.get(choice)
        if trial is None:
            trial = self._trials[choice] = self._try(self._asked(choice))
        return trial

    def answer(self, choice: Choice, prefer: Prefer) -> Fit:
        """The trial of a choice, and those of one step more."""
        trial = self.at(choice)
        steps = self._one_more(choice) if trial.fits else {}
        return Fit(
            choice=choice,
            trial=trial,
            prefer=prefer,
            n_layers=self.predictor.h.n_layer_all + 1,
            next_steps={goal: self.at(more) for goal, more in steps.items()},
        )

    def _one_more(self, choice: Choice) -> dict[Goal, Choice]:
        steps = {goal: getattr(choice, goal) for goal in GOALS}
        return {
            goal: replace(choice, **{goal: step + 1}) for goal, step in steps.items() if step < self.scales[goal].top
        }

    def with_more(self, name: str, nbytes: int) -> "Fitter":
        """A fitter with more memory in one place, a device or main memory."""
        devices = tuple(
            replace(d, memory_bytes=d.memory_bytes + nbytes) if d.name == name else d for d in self.params.devices
        )
        ram_bytes = self.budget.ram_bytes
        if name == HOST and ram_bytes is not None:
            ram_bytes += nbytes
        return self.like(replace(self.params, devices=devices), replace(self.budget, ram_bytes=ram_bytes))

    def like(self, params: Params, budget: Budget) -> "Fitter":
        """A fitter with another budget for the same model."""
        other = Fitter(self.predictor, params, budget, fixed=self.fixed, n_ctx_min=self.n_ctx_min, predict=self.predict)
        other._overheads = list(self._overheads)
        return other

    def furthest(self, choice: Choice, goal: Goal) -> Choice:
        """The choice with one goal as far on as it goes; what more layers leave to main memory is not asked."""

        def at(step: int) -> Choice:
            return replace(choice, **{goal: step})

        def over(step: int) -> int:
            trial = self.at(at(step))
            return _on_devices(trial) if goal == "level" else trial.tightest.over_bytes

        def guessed(step: int) -> int:
            return self._guess(self._asked(at(step)))

        by_devices = self.devices and (goal == "level" or choice.level is not None)
        least = 0 if goal == "level" else getattr(choice, goal)
        return at(largest(least, self.scales[goal].top, over, guessed if by_devices else None))

    def _guess(self, params: Params) -> int:
        """By how much devices would be over: layers by their costs, all else as it was last."""
        if not params.devices or not params.n_gpu_layers:
            return -min(self._rooms)
        items = self.costs.items(params.n_gpu_layers, params.n_cpu_moe, self.predictor.context(params))
        counts = self._counts(params, items)
        return max(
            (taken + overhead - room if count else -room)
            for count, taken, overhead, room in zip(
                counts, stretches(items, counts), self._overheads, self._rooms, strict=True
            )
        )

    def _asked(self, choice: Choice) -> Params:
        fields = {k: v for goal in GOALS for k, v in self.scales[goal].steps[getattr(choice, goal)].items()}
        return replace(self.params, **fields)

    def _try(self, params: Params) -> Trial:
        """Predict; with several devices, in the division that fits or comes nearest."""
        if not params.devices or not params.n_gpu_layers:
            return self._judge(params)
        items = self.costs.items(params.n_gpu_layers, params.n_cpu_moe, self.predictor.context(params))
        tried: dict[tuple[int, ...], Trial] = {}
        for counts in self._divisions(params, items):
            if counts in tried:
                continue
            divided = replace(params, tensor_split=tuple(map(float, counts))) if self._divides else params
            trial = tried[counts] = self._judge(divided)
            totals = {device.name: device.total_bytes for device in trial.prediction.devices}
            self._overheads = [  # of idle devices what was seen last
                totals[device.name] - taken if count else last
                for device, count, taken, last in zip(
                    self.devices, counts, stretches(items, counts), self._overheads, strict=True
                )
            ]
            if _on_devices(trial) <= 0:
                self._held[len(items)] = counts
                break
        return min(tried.values(), key=_on_devices)

    def _divisions(self, params: Params, items: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """What to try: even ones, by what each trial has shown; and the one that has held as many layers before."""
        for _ in range(_ROUNDS):
            yield self._counts(params, items)
        if self._divides and len(items) in self._held:
            yield self._held[len(items)]

    def _counts(self, params: Params, items: Sequence[int]) -> tuple[int, ...]:
        """How many of the items go to each device."""
        if self._divides:
            return divide(items, self._rooms, self._overheads)
        homes = place_layers(params, self.predictor.h.n_layer_all)
        placed = Counter((*homes.layers, homes.output)[-len(items) :])
        return tuple(placed[device.name] for device in self.devices)

    def _judge(self, params: Params) -> Trial:
        trial = self._judged.get(params)
        if trial is None:
            prediction = self.predict(params)
            totals = {device.name: device.total_bytes for device in prediction.devices}
            places = [
                Place(
                    name=device.name,
                    needed_bytes=totals.get(device.name, 0),
                    memory_bytes=device.memory_bytes,
                    margin_bytes=self.budget.margin(i, device.memory_bytes) if totals.get(device.name) else 0,
                )
                for i, device in enumerate(self.devices)
            ]
            if self.budget.ram_bytes is not None:
                main = Place(
                    name=HOST,
                    needed_bytes=prediction.process_bytes,
                    memory_bytes=self.budget.ram_bytes,
                    margin_bytes=self.budget.ram_margin_bytes,
                )
                places.insert(0, main)
            trial = Trial(params=params, prediction=prediction, places=tuple(places))
            self._judged[params] = trial
        return trial


def _on_devices(trial: Trial) -> int:
    """By how much it is over on the devices."""
    return max((place.over_bytes for place in trial.places if place.name != HOST), default=0)


def _check(params: Params, budget: Budget) -> None:
    unknown = [device.name for device in used_devices(params) if not device.memory_bytes]
    if unknown:
        raise ValueError(
            f"how much memory {', '.join(unknown)} has is not known: say it (--device {unknown[0]}=24GiB, or --memory)"
        )
    if not used_devices(params) and budget.ram_bytes is None:
        raise ValueError("no device, and no limit to main memory (--ram): there is nothing to fit into")
    if len(budget.margins) > 1 and len(budget.margins) != len(used_devices(params)):
        raise ValueError(
            f"{len(budget.margins)} margins for {len(used_devices(params))} devices, expected one for each"
        )
