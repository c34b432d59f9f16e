"""Which requests are sent? Prompts of common words, distinct unless they share their beginning.

No tokenizer is asked: common English words are about a token each in most vocabularies, and how many tokens a server
made of so many words, its first answers tell: of two lengths, since a chat template adds as many to any prompt.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.load.lengths import Lengths

# Short words that are one token, with the space in front, in the vocabularies we know.
_TEXT: Final = (
    "the of and to in is that it for on with as was at by this be from are or an have not but they you all one had "
    "his her which she he we were there been their has will would more when who what no if out so up said about into "
    "than them can only other new some could time these two may then do first any my now such like our over man me "
    "even most made after also did many before must through back years where much your way well down should because "
    "each just those people state good very make world still own see men work long get here between both life being "
    "under never day same another know while last might us great old year off come since against go came right used"
)
WORDS: Final = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its text, how many tokens it should have, and how many are asked for."""

    prompt: str
    n_prompt: int
    n_predict: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What the requests are like. `shared` tokens at the beginning are the same in all of them.

    `fixed` of a prompt's tokens are none of its words: what a chat template writes around them.
    """

    prompt: Lengths
    answer: Lengths
    shared: int = 0
    words_per_token: float = 1.0
    fixed: int = 0
    seed: int = 0

    def requests(self, part: int) -> Iterator[Request]:
        """Requests without end; those of one `part` (a level, a warm-up) are none of another's."""
        common = self._words(random.Random(f"{self.seed} shared"), max(0, self.shared - self.fixed))
        rng = random.Random(f"{self.seed} {part}")
        while True:
            n_prompt = self.prompt.draw(rng)
            own = self._words(rng, max(1, n_prompt - max(self.shared, self.fixed)))
            yield Request(" ".join((*common, *own)), n_prompt, self.answer.draw(rng))

    def fitted(self, seen: Sequence[tuple[int, int]]) -> "Mix":
        """With as many words as make the tokens wanted, by prompts of so many words that were so many tokens."""
        if not seen:
            return self
        (few, least), (many, most) = min(seen), max(seen)
        if many > few and most > least:
            per_token = _bounded((many - few) / (most - least))
            return replace(self, words_per_token=per_token, fixed=max(0, round(most - many / per_token)))
        return replace(self, words_per_token=_bounded(many / most))

    def _words(self, rng: random.Random, n_tokens: int) -> list[str]:
        return rng.choices(WORDS, k=round(n_tokens * self.words_per_token)) if n_tokens else []


def _bounded(words_per_token: float) -> float:
    return min(max(words_per_token, 0.25), 2.0)
