"""Does it fit into the memory there is? The process against main memory, each device against its own.

Main memory is compared with the most that the process holds at any moment and cannot give back: what is resident in
steady decode, where a mapped file counts whole and of the compute buffer what is written to, or what reading the
weights takes through staging buffers, if that is more. That is what a machine or a container runs out of. Pages that
are mapped only while the model loads don't count, since the kernel drops them when it needs room. A device holds
llama.cpp's buffers and nothing else that is known here.
"""

from ggufphys.frozen import dataclass
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.params import HOST
from ggufphys.units import parse_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One place: what is needed there, and what there is."""

    name: str
    needed_bytes: int
    memory_bytes: int

    @property
    def margin_bytes(self) -> int:
        """What is left over; negative when it does not fit."""
        return self.memory_bytes - self.needed_bytes

    @property
    def holds(self) -> bool:
        """Does it fit here?"""
        return self.margin_bytes >= 0


def fits(prediction: MemoryPrediction, memory_bytes: int) -> tuple[Fit, ...]:
    """Main memory of `memory_bytes`, then every device whose memory is known."""
    host = Fit(name=HOST, needed_bytes=prediction.process.needed_bytes, memory_bytes=memory_bytes)
    devices = (
        Fit(name=d.name, needed_bytes=d.total_bytes, memory_bytes=d.memory_bytes)
        for d in prediction.devices
        if d.name != HOST and d.memory_bytes
    )
    return (host, *devices)


def memory_limit(text: str) -> int:
    """The size behind --assert-fits.

    Raises:
        ValueError: no size, none at all, or several.
    """
    if "," in text:
        raise ValueError(
            f"--assert-fits: {text!r} names several sizes, expected one, that of main memory: a device's "
            "memory is given with it"
        )
    return parse_memory(text, "--assert-fits")
