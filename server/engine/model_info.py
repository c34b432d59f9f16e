"""What does the HTTP side need to know of the model that an engine runs?"""

from dataclasses import dataclass
from typing import Final, Literal

NOT_ASKED: Final = "it was started without --model-draft and --spec-type"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter that is loaded beside the model; its number is its place among them.

    `scale` is that of requests that ask for none by number or by model; `named_scale` that of the model NAME:`name`.
    """

    path: str
    name: str = ""
    scale: float = 1.0
    named_scale: float = 1.0


Pooling = Literal["none", "mean", "cls", "last", "rank"]

POOLINGS: Final[dict[Pooling, int]] = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}  # include/llama.h


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillTokens:
    """Tokens that tell a model what stands before a middle, what behind it, and that it comes now.

    `repo` and `separator` stand before a repository's name and each file's, where the model knows of them.
    """

    prefix: int
    suffix: int
    middle: int
    repo: int | None = None
    separator: int | None = None


Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What the HTTP side needs to know of the model."""

    name: str
    n_ctx_seq: int
    n_ctx_train: int
    n_vocab: int
    n_embd: int
    n_params: int
    model_bytes: int
    chat_template: str  # empty: the file has none
    bos_text: str
    eos_text: str
    adds_bos: bool  # tokenize puts BOS in front by itself
    n_slots: int = 1  # answers that can be under way at a time
    takes_slots: bool = True  # False: the engine has one, whatever flags say
    pooling: Pooling = "none"  # of embeddings, as the file has it
    sees: bool = False  # it reads images
    hears: bool = False  # it reads sounds
    generates: bool = True  # False: vectors of texts are all that it gives
    n_text_max: int | None = None  # tokens that a text to embed may have; None: the engine finds out
    n_batch: int = 2048  # tokens in a batch at most, as asked
    n_block: int = 0  # slots whose answers go together so that others change no bit; 0: as they come
    infill: InfillTokens | None = None  # None: the model knows of no middle
    adapters: tuple[Adapter, ...] = ()
    guesses: tuple[str, ...] = ()  # how tokens are guessed, llama-server's words; none: they are not
    why_no_guess: str = NOT_ASKED
    tool_template: str = ""  # for conversations with tools, where the file has one of its own for them
    scores: bool = False  # it has what makes scores of texts
    rank_template: str = ""  # for a {query} and a {document} that is to be ranked
    pair: tuple[Tokens, Tokens, Tokens] | None = None  # without one: what stands before, between and behind these
