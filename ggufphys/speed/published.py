"""Machines that nobody has here, by what their makers publish: `inspect --on m2-air-8gb`.

A data sheet has peaks. How much of them llama.cpp reaches is said by class of machine in `classes.txt`, and was found
by what people published of some of them: `python -m scripts.check_published` sets each such run beside its prediction.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Final

from ggufphys.frozen import dataclass, replace
from ggufphys.machine.devices import unified_bytes
from ggufphys.paths import beside, read_text
from ggufphys.speed.rates import Machine, Processor

_SIZE: Final = re.compile(r"(.+)-(\d+)gb")
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineClass:
    """What llama.cpp reaches of data sheets' peaks.

    Args:
        bandwidth_share: of the bytes a second.
        flops_share: of the operations a second.
        node_s: what a node of the graph takes beside its work.
        band: what measured seconds were of those predicted: nine in ten of published runs lie between.
    """

    name: str
    bandwidth_share: float
    flops_share: float
    node_s: float
    band: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedMachine:
    """A row of `machines.txt`: rates in bytes and operations a second."""

    name: str
    class_name: str
    device: str
    memory_bytes: int
    bytes_per_s: float
    flops_per_s: float
    host: str
    link_bytes_per_s: float
    description: str

    @property
    def has_gpu(self) -> bool:
        """Does the model run beside the processor?"""
        return self.device != "CPU"

    @property
    def device_bytes(self) -> int:
        """Memory that the GPU may use: all of its own, a part of what Apple's share with the processor."""
        return unified_bytes(self.memory_bytes) if self.class_name == "metal" else self.memory_bytes


def published_machine(name: str) -> PublishedMachine:
    """The machine of a name such as `rtx-3090`; `m2-air-16gb` is `m2-air` with another memory.

    Raises:
        ValueError: no such machine; the message names those that are alike.
    """
    known = {machine.name: machine for machine in published_machines()}
    wanted = name.strip().lower().replace(" ", "-")
    if wanted in known:
        return known[wanted]
    match = _SIZE.fullmatch(wanted)
    if match is not None and match[1] in known:
        return replace(known[match[1]], name=wanted, memory_bytes=int(match[2]) * _GIB)
    from difflib import get_close_matches  # when the name is wrong alone

    near = get_close_matches(wanted, known, n=4, cutoff=0.4) or list(known)[:4]
    raise ValueError(
        f"no data sheet of {name!r} is known; alike are {', '.join(near)} (`--on list` prints all {len(known)}, and "
        "-16gb behind a name is another memory)"
    )


@cache
def published_machines() -> Sequence[PublishedMachine]:
    """All of `machines.txt`."""
    return tuple(
        PublishedMachine(
            name=name,
            class_name=class_name,
            device=device,
            memory_bytes=int(memory) * _GIB,
            bytes_per_s=float(bandwidth) * 1e9,
            flops_per_s=float(tflops) * 1e12,
            host="" if host == "-" else host,
            link_bytes_per_s=float(link) * 1e9,
            description=description,
        )
        for name, class_name, device, memory, bandwidth, tflops, host, link, description in _rows("machines.txt")
    )


@cache
def machine_classes() -> dict[str, MachineClass]:
    """All of `classes.txt`, by name."""
    return {
        name: MachineClass(
            name=name,
            bandwidth_share=float(bandwidth),
            flops_share=float(flops),
            node_s=float(node_us) * 1e-6,
            band=(float(low), float(high)),
        )
        for name, bandwidth, flops, node_us, low, high in _rows("classes.txt")
    }


def data_sheet(published: PublishedMachine, classes: Mapping[str, MachineClass] | None = None) -> Machine:
    """The rates that llama.cpp is expected to reach there."""
    classes = classes or machine_classes()
    processors = [_processor(published, classes)]
    if published.has_gpu:
        if published.host:
            host = next(m for m in published_machines() if m.name == published.host)
            processors.append(_processor(host, classes))
        else:  # the same memory, and a processor that is seldom what limits
            processors.append(_processor(published, classes, name="CPU", flops_factor=0.25))
    return Machine(
        name=published.description,
        basis="published",
        source=f"data sheet of {published.name}, class {published.class_name}; nothing was measured there by us",
        processors=processors,
        link_bytes_per_s=published.link_bytes_per_s,
    )


def _processor(
    published: PublishedMachine, classes: Mapping[str, MachineClass], *, name: str = "", flops_factor: float = 1.0
) -> Processor:
    reached = classes[published.class_name]
    return Processor(
        name=name or published.device,
        n_threads=0,
        streams=((0, published.bytes_per_s * reached.bandwidth_share),),
        flops_per_s=published.flops_per_s * reached.flops_share * flops_factor,
        node_s=reached.node_s,
        band=reached.band,
    )


def _rows(name: str) -> Iterator[list[str]]:
    for line in read_text(beside(__file__, name)).splitlines():
        if line.strip() and not line.startswith("#"):
            yield [cell.strip() for cell in line.split("|")]
