"""How are tokens guessed? What the flags ask for, as engines get it."""

from dataclasses import dataclass, replace
from typing import Final

from ggufphys.params import Params
from server.engine.scheduler.drafts import Drafting
from server.engine.scheduler.lookup import Lookups


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftFile:
    """A draft model, how it is run and how it guesses. `params` are whole: nothing is taken from the model's."""

    path: str
    params: Params
    drafting: Drafting


@dataclass(frozen=True, slots=True, kw_only=True)
class Guessing:
    """By looking back, by a draft model, by both (then the first that knows something), or not at all."""

    lookups: Lookups | None = None
    draft: DraftFile | None = None
    always: bool = False  # also where answers come slower by it

    def __bool__(self) -> bool:
        return bool(self.types)

    @property
    def types(self) -> tuple[str, ...]:
        """llama-server's words for it."""
        return (*(["ngram-simple"] if self.lookups else []), *(["draft-simple"] if self.draft else []))

    def without_extra_buffers(self) -> "Guessing":
        """The guessing with a draft model whose weights are not repacked."""
        if self.draft is None:
            return self
        params = replace(self.draft.params, use_extra_bufts=False)
        return replace(self, draft=replace(self.draft, params=params))


NOTHING: Final = Guessing()
