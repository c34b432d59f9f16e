"""What `inspect` says of speed where nothing is known: nulls, and why. Apart, since most starts need no more."""

from typing import Final

from ggufphys.report.inspection import Section

NO_CALIBRATION: Final = "not known for this machine: `ggufphys bench calibrate` measures its rates, in a minute"
FIGURES: Final = ("prefill_tok_per_s", "decode_tok_per_s", "ttft_s", "load_s", "load_warm_s", "limit")


def unknown_section(reason: str) -> Section:
    """The section without figures."""
    value = {**dict.fromkeys(FIGURES), "basis": None, "reason": reason}
    return Section(key="speed", lines=(f"speed: {reason}",), value=value)
