"""The machines of `--on`: text, JSON."""

from ggufphys.frozen import asdict
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.speed.published import published_machines


def machines_text() -> str:
    """A line a machine: its name, what it is, what its data sheet says."""
    rows = [
        (m.name, m.description, f"{m.memory_bytes >> 30}", f"{m.bytes_per_s / 1e9:g}", f"{m.flops_per_s / 1e12:g}")
        for m in published_machines()
    ]
    return "\n".join(table(("--on", "machine", "GiB", "GB/s", "TFLOPS"), rows, right=(2, 3, 4)))


def machines_json() -> str:
    """The machines as one document."""
    return dumps({"schema_version": SCHEMA_VERSION, "machines": [asdict(machine) for machine in published_machines()]})
