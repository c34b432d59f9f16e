"""What `fit` says of speed: how fast the chosen way is predicted to be, and whether that is what was wanted."""

from ggufphys.report.inspection import Section
from ggufphys.report.speed import format_rate, speed_json
from ggufphys.speed.predict import Figure, SpeedPrediction


def fit_speed_section(
    speed: SpeedPrediction, target: float | None, otherwise: tuple[bool, SpeedPrediction] | None = None
) -> Section:
    """`target` is in tokens a second; None if nothing was asked. `otherwise`: repacked or not, and how fast that is."""
    what, figure = ("generates", speed.decode.tok_per_s) if speed.decode else ("reads", speed.prefill.tok_per_s)
    line = f"{what} {_figure(figure)} tokens/s on {speed.machine} ({speed.basis})"
    if speed.decode:
        line += f", reads prompts at {_figure(speed.prefill.tok_per_s)}"
    value = {**speed_json(speed), "target_tok_per_s": target, "otherwise": None}
    lines = [line]
    if otherwise is not None:
        flag, other = "--repack" if otherwise[0] else "--no-repack", otherwise[1]
        value["otherwise"] = {"flag": flag, **speed_json(other)}
        lines.append(f"{flag} reads prompts faster: at {format_rate(other.prefill.tok_per_s.value)}")
        if other.decode:
            lines[-1] += f", and generates {format_rate(other.decode.tok_per_s.value)}"
    if target is None:
        return Section(key="speed", lines=tuple(lines), value=value)
    reached = figure.value >= target
    verdict = f"{format_rate(target)} tokens/s wanted: " + (
        "reached"
        if figure.low >= target
        else f"reached, though not by the lower end of the range, {format_rate(figure.low)}"
        if reached
        else "no way that fits is so fast"
    )
    return Section(key="speed", lines=(*lines, verdict), value={**value, "target_reached": reached})


def _figure(figure: Figure) -> str:
    return f"{format_rate(figure.value)} ({format_rate(figure.low)} to {format_rate(figure.high)})"
