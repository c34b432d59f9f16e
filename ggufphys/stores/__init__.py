"""Which models are on this machine already? Those that other programs have downloaded, each by where it keeps them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ggufphys.stores.hub_cache import huggingface_models, llama_cpp_models
from ggufphys.stores.lm_studio import lm_studio_models
from ggufphys.stores.ollama import ollama_models
from ggufphys.stores.places import Places, Stored, here

STORES: Final[Mapping[str, Callable[[Places], Iterable[Stored]]]] = {
    "llama.cpp": llama_cpp_models,
    "Hugging Face": huggingface_models,
    "Ollama": ollama_models,
    "LM Studio": lm_studio_models,
}


def stored_models(places: Places | None = None) -> tuple[Stored, ...]:
    """Every model of every store, sorted by name within it; a path that two stores share is the first one's."""
    places = places or here()
    found: dict[tuple[str, str], Stored] = {}
    for list_models in STORES.values():
        for stored in sorted(list_models(places), key=lambda s: s.name):
            key = (stored.path, stored.name if stored.store == "Ollama" else "")  # several names may share a file there
            found.setdefault(key, stored)
    return tuple(found.values())


__all__ = ["STORES", "Places", "Stored", "here", "stored_models"]
