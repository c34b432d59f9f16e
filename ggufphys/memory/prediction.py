"""What is predicted: bytes by quantity and by device, as sums of terms."""

from ggufphys.context import ContextParams
from ggufphys.frozen import dataclass
from ggufphys.loads.refusal import Refusal
from ggufphys.memory.phases import ProcessMemory, process_memory
from ggufphys.memory.terms import Basis, Quantity, Term, total
from ggufphys.params import HOST, Device


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """What lies on one device; `Host` is main memory. `memory_bytes` is what is free there, None when unknown."""

    name: str
    model_bytes: int
    context_bytes: int
    compute_bytes: int
    output_bytes: int
    attachment_bytes: int
    memory_bytes: int | None

    @property
    def total_bytes(self) -> int:
        """All of llama.cpp's buffers there."""
        own = self.model_bytes + self.context_bytes + self.compute_bytes + self.output_bytes
        return own + self.attachment_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPrediction:
    """Bytes by quantity, as sums of `terms`. `context` holds the parameters after llama.cpp's rounding.

    `notes` say what a reader should know about the figures, a sentence each; `refusals` why llama.cpp would not load
    the file, for which they were forced.
    """

    context: ContextParams
    basis: dict[Quantity, Basis]
    terms: tuple[Term, ...]
    given_devices: tuple[Device, ...] = ()
    use_mlock: bool = False
    notes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def model_bytes(self) -> int:
        """Weight buffers, mapped and allocated."""
        return total(self.terms, "model")

    @property
    def context_bytes(self) -> int:
        """KV cache and recurrent state."""
        return total(self.terms, "context")

    @property
    def compute_bytes(self) -> int:
        """The buffer for intermediate results."""
        return total(self.terms, "compute")

    @property
    def output_bytes(self) -> int:
        """The buffer for logits."""
        return total(self.terms, "output")

    @property
    def attachment_bytes(self) -> int:
        """Buffers beside the model's own: adapters, mmproj, a draft model."""
        return total(self.terms, "attachment")

    @property
    def total_bytes(self) -> int:
        """All of llama.cpp's buffers."""
        own = self.model_bytes + self.context_bytes + self.compute_bytes + self.output_bytes
        return own + self.attachment_bytes

    @property
    def ceilings(self) -> tuple[Term, ...]:
        """What may be taken later, up to so much each; nothing is reserved for it, and it is in no total."""
        return tuple(term for term in self.terms if term.quantity == "ceiling")

    @property
    def process_bytes(self) -> int:
        """Resident memory of the process in steady decode."""
        return total(self.terms, "process")

    @property
    def process(self) -> ProcessMemory:
        """Resident memory of the process by kind, by phase, and at its peak."""
        return process_memory(self.terms, use_mlock=self.use_mlock)

    @property
    def devices(self) -> tuple[DeviceMemory, ...]:
        """What each device holds: `Host`, then those that were given, in their order."""
        rows = ((HOST, None), *((d.name, d.memory_bytes or None) for d in self.given_devices))
        return tuple(
            DeviceMemory(
                name=name,
                model_bytes=total(self.terms, "model", name),
                context_bytes=total(self.terms, "context", name),
                compute_bytes=total(self.terms, "compute", name),
                output_bytes=total(self.terms, "output", name),
                attachment_bytes=total(self.terms, "attachment", name),
                memory_bytes=memory_bytes,
            )
            for name, memory_bytes in rows
        )
