"""What will this model cost in memory, run like this? All quantities together, each with its evidence."""

from dataclasses import dataclass

from ggufphys import host
from ggufphys.arch import rule_for
from ggufphys.errors import UnsupportedError
from ggufphys.gguf import GGUFFile
from ggufphys.hparams import HParams, read_hparams
from ggufphys.memory.compute import compute_basis, compute_terms, output_terms
from ggufphys.memory.context import context_terms
from ggufphys.memory.process import process_terms
from ggufphys.memory.terms import Basis, Quantity, Term, total
from ggufphys.memory.weights import weight_terms
from ggufphys.params import ContextParams, Params, resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """What lies on one device; `Host` is main memory."""

    name: str
    model_bytes: int
    context_bytes: int
    compute_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPrediction:
    """Bytes by quantity, as sums of `terms`. `context` holds the parameters after llama.cpp's rounding."""

    context: ContextParams
    basis: dict[Quantity, Basis]
    terms: tuple[Term, ...]

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
    def total_bytes(self) -> int:
        """All of llama.cpp's buffers."""
        return self.model_bytes + self.context_bytes + self.compute_bytes + self.output_bytes

    @property
    def process_bytes(self) -> int:
        """Resident memory of the process in steady decode."""
        return total(self.terms, "process")

    @property
    def devices(self) -> tuple[DeviceMemory, ...]:
        """The same by device."""
        return (
            DeviceMemory(
                name="Host",
                model_bytes=self.model_bytes,
                context_bytes=self.context_bytes,
                compute_bytes=self.compute_bytes,
            ),
        )


def predict_memory(
    gguf: GGUFFile, params: Params | None = None, *, base_bytes: int | None = None, n_prompt: int | None = None
) -> MemoryPrediction:
    """Predict what llama.cpp will allocate for this file and these parameters (default: llama.cpp's).

    Args:
        gguf: an open file.
        params: how it will be run.
        base_bytes: resident memory of a process that has only loaded the library, where that was measured.
        n_prompt: for process_bytes: tokens of the longest prompt so far; None for at least a physical batch.

    Raises:
        UnsupportedError: the file is no model, or its architecture has no rule yet.
        GGUFError: a key or a tensor that the prediction needs is missing or malformed.
        ValueError: llama.cpp would refuse the parameters; the message gives its reason.
    """
    params = params or Params()
    require_model(gguf)
    rule = rule_for(gguf.architecture)
    h = read_hparams(gguf)
    context = resolve(params, n_ctx_train=h.n_ctx_train, causal_attn=h.causal_attn, flash_attn_possible=rule.flash_attn)
    buffers = (
        *predict_weights(gguf, params),
        *context_terms(h, rule, context),
        *compute_terms(gguf, h, rule, context),
        *output_terms(h, context),
    )
    return MemoryPrediction(
        context=context,
        basis={
            "model": "exact",
            "context": "exact",
            "compute": compute_basis(h.arch),
            "output": "exact",
            "process": "estimate",
        },
        terms=(*buffers, *process_terms(gguf, h, params, context, buffers, base_bytes=base_bytes, n_prompt=n_prompt)),
    )


def predict_weights(gguf: GGUFFile, params: Params | None = None) -> tuple[Term, ...]:
    """The terms of model_bytes alone, which need no rule for the architecture.

    Raises:
        GGUFError: a tensor has a type whose size is not known.
    """
    params = params or Params()
    return weight_terms(gguf, params, host.cpu_features())


def require_model(gguf: GGUFFile) -> None:
    """Refuse files that llama.cpp cannot run by themselves.

    Raises:
        UnsupportedError: naming what the file is.
    """
    if gguf.kind != "model":
        raise UnsupportedError(f"{gguf.path}: a GGUF of kind {gguf.kind!r}, not a model that can be run by itself")


__all__ = ["DeviceMemory", "HParams", "MemoryPrediction", "predict_memory", "predict_weights", "require_model"]
