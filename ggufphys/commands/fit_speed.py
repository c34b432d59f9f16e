"""What `fit` makes of a machine's speed: which of the ways that fit is chosen, and whether it is fast enough."""

import argparse
from typing import TYPE_CHECKING

from ggufphys.commands.costs import machine_asked
from ggufphys.frozen import dataclass
from ggufphys.graph.devices.placement import used_devices
from ggufphys.params import Params
from ggufphys.plan.fit import Fit, Fitter, Trial
from ggufphys.report.inspection import Section
from ggufphys.speed.rates import CalibrationError

if TYPE_CHECKING:
    from ggufphys.report.fit import Pace
    from ggufphys.speed.predict import SpeedPrediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """A fit, and how fast it is; without a speed where nothing is known of it, or nothing fits."""

    fit: Fit
    speed: "SpeedPrediction | None" = None
    enough: bool = True  # as fast as --target asks
    pace: "Pace | None" = None  # of other ways to run the same model
    otherwise: "tuple[bool, SpeedPrediction] | None" = None  # repacked or not, where that reads prompts faster


class Paces:
    """The speed of models on the machine that is asked about, on the devices that `params` use.

    Raises:
        ValueError: a target where nothing is known of the machine's speed, or of a device's.
    """

    def __init__(self, args: argparse.Namespace, params: Params) -> None:
        self.prefer, self.target = args.prefer, args.target
        self.machine, self.unknown = None, ""
        try:
            self.machine = machine_asked(args)
        except CalibrationError as error:  # memory fits or does not all the same
            self.unknown = str(error)
            self._require(self.unknown)
            return
        if self.machine is None:
            missing = "this machine's rates are not known: `ggufphys bench calibrate` measures them in a minute, "
            self._require(missing + "--on names another machine")
            return
        absent = {device.name for device in used_devices(params)} - {cpu.name for cpu in self.machine.processors}
        if absent:
            self.unknown = (
                f"{self.machine.name} has no rates of {', '.join(sorted(absent))}: "
                "--on names a machine with such a device"
            )
            self._require(self.unknown)

    def _require(self, missing: str) -> None:
        if self.target is not None:
            raise ValueError(f"--target {self.target:g}tok/s: {missing}")

    def choose(self, fitter: Fitter, fit: Fit) -> Paced:
        """The fit by what is predicted to be fast, where the rates are known and it fits at all."""
        machine = self.machine
        if machine is None or self.unknown or not fit.fits:
            return Paced(fit=fit)
        from ggufphys.plan.fastest import fast_enough, fastest, reads_faster  # where speed is known
        from ggufphys.speed.predict import Speeds

        known: dict[Params, SpeedPrediction] = {}

        def predicted(trial: Trial) -> "SpeedPrediction":
            params = trial.params
            if params not in known:
                known[params] = Speeds(fitter.predictor.run(params), machine, params.n_threads).predict()
            return known[params]

        def rate(trial: Trial) -> float:
            speed = predicted(trial)
            return (speed.decode or speed.prefill).tok_per_s.value

        def reads(trial: Trial) -> float:
            return predicted(trial).prefill.tok_per_s.value

        if self.prefer == "speed" or self.target is not None:
            fit = fastest(fitter, fit if self.prefer == "speed" else fitter.fit("speed"), rate, reads)
        enough = fit if self.target is None else fast_enough(fitter, fit, rate, self.target)
        fit = enough or fit
        other = reads_faster(fitter, fit, reads)
        return Paced(
            fit=fit, speed=predicted(fit.trial), enough=enough is not None, pace=predicted,
            otherwise=None if other is None else (other.params.use_extra_bufts, predicted(other)),
        )  # fmt: skip

    def sections(self, paced: Paced) -> tuple[Section, ...]:
        """What is said of the speed of one model, beside how it fits."""
        if paced.speed is not None:
            from ggufphys.report.fit_speed import fit_speed_section

            return (fit_speed_section(paced.speed, self.target, paced.otherwise),)
        if self.unknown and paced.fit.fits:
            from ggufphys.report.unknown_speed import unknown_section

            return (unknown_section(self.unknown),)
        return ()
