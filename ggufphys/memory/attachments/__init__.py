"""What stands beside a model when it runs, and what does it cost: adapters, mmproj, a draft model, llama-server."""

from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile
from ggufphys.params import CACHE_TYPES, Device

DRAFT_N_MAX: Final = 3  # --spec-draft-n-max: tokens drafted at once
BATCH_MAX_TOKENS: Final = 1024  # --mtmd-batch-max-tokens: tokens of images encoded at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A draft model for speculative decoding, with a context as long as the model's own."""

    gguf: GGUFFile
    type_k: str = "f16"
    type_v: str = "f16"
    n_gpu_layers: int = -1
    n_max: int = DRAFT_N_MAX
    n_threads: int = 0  # 0: as the model
    devices: tuple[Device, ...] | None = None  # None: as the model
    override_tensor: tuple[tuple[str, str], ...] = ()
    n_cpu_moe: int = 0

    def __post_init__(self) -> None:
        _check_guesses(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """The model's own prediction heads guess (--spec-type draft-mtp), in a context as long as the model's own."""

    type_k: str = "f16"
    type_v: str = "f16"
    n_max: int = DRAFT_N_MAX

    def __post_init__(self) -> None:
        _check_guesses(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """llama-server's own memory: how much it may keep of earlier prompts (-1: no limit, 0: nothing)."""

    cache_ram_mib: int = 8192
    n_ctx_checkpoints: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachments:
    """What is loaded beside a model; files are open."""

    loras: tuple[GGUFFile, ...] = ()
    control_vectors: tuple[GGUFFile, ...] = ()
    mmproj: GGUFFile | None = None
    mmproj_offload: bool = True
    mmproj_device: str = ""  # one of the run's; empty: its first, none: as without mmproj_offload
    image_max_tokens: int = 0
    batch_max_tokens: int = BATCH_MAX_TOKENS
    draft: Draft | None = None
    heads: Heads | None = None
    server: Server | None = None


def _check_guesses(guesses: Draft | Heads) -> None:
    for name in ("type_k", "type_v"):
        if getattr(guesses, name) not in CACHE_TYPES:
            raise ValueError(f"draft {name} is {getattr(guesses, name)!r}, expected one of {', '.join(CACHE_TYPES)}")
    if guesses.n_max < 0:
        raise ValueError(f"draft n_max is {guesses.n_max}, expected 0 or more")


__all__ = ["BATCH_MAX_TOKENS", "DRAFT_N_MAX", "Attachments", "Draft", "Heads", "Server"]
