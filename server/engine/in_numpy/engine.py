"""The model in numpy as what an engine runs: `refengine`, of which this room knows only what it asks of it.

The two rooms stand side by side, so whoever knows both hands `refengine.load` in: the console script, a test.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, Literal, Protocol

from ggufphys import MemoryPrediction
from ggufphys.params import Params
from server.engine.backend import Backend, SerialBackend
from server.engine.checks import embeds_only
from server.engine.describe import describe
from server.engine.errors import EngineError
from server.engine.in_numpy.vectors import NumpyEncoder, NumpyVectors
from server.engine.loop.threaded import ThreadedEngine
from server.engine.model_info import Pooling
from server.engine.runner import Odds, Unwanted, Words
from server.engine.sampling import Sampling
from server.engine.scheduler.slots import Kind

Hold = Literal["f32", "quantised"]
DEFAULTS: Final = Sampling()
KNOWN: Final = (
    "temperature", "top_k", "top_p", "min_p", "seed", "repeat_penalty", "repeat_last_n", "frequency_penalty",
    "presence_penalty", "logit_bias", "ignore_eos",
)  # fmt: skip
"""Fields of `Sampling` that refengine.sample.Sampler knows."""


class Draws(Protocol):
    """refengine.sample.Sampler."""

    def remember(self, tokens: Sequence[int]) -> None:
        """Let the penalties see tokens."""
        ...

    def choose(self, logits: Any) -> int:
        """A token for a row of logits."""
        ...


class NumpyModel(NumpyEncoder, Protocol):
    """What is asked of refengine.Model."""

    def prepare(self, watch: Callable[[], object]) -> None:
        """Dequantise the weights; `watch` is called before each and may raise."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...

    def cut(self, n_tokens: int) -> bool:
        """Forget all but the first tokens, if memory can be cut."""
        ...

    def evaluate(self, tokens: Sequence[int], *, all_logits: bool = True) -> Any:
        """Append tokens: logits, `(1, n_vocab)` of the last."""
        ...

    def sampler(self, **options: Any) -> Draws:
        """What chooses tokens; options are `Sampling`'s."""
        ...


Load = Callable[..., NumpyModel]
"""refengine.load: a path, and options by name."""


class Predict(Protocol):
    """refengine.predict_footprint."""

    def __call__(self, model: Any, *, n_prompt: int, base_bytes: int) -> MemoryPrediction:
        """The memory that it will take."""
        ...


def load_options(params: Params, hold: Hold) -> dict[str, Any]:
    """What `refengine.load` is told of the parameters."""
    return {
        "type_k": params.type_k,
        "type_v": params.type_v,
        "flash_attn": params.flash_attn != "off",
        "swa_full": params.swa_full,
        "hold": hold,
        "n_ctx": params.n_ctx,
        "n_ubatch": params.n_ubatch,
        "n_threads": params.n_threads,
    }


class NumpyEngine(ThreadedEngine):
    """Generates with numpy; implements `Engine`.

    Args:
        model: opened by `refengine.load` with `load_options`; the engine's from now on.
        name: the model's name to clients; empty: as the file has it.
        pooling: how an encoder's vectors of tokens become one; None: as the file says.
        max_waiting: how many requests may wait.
        warn: gets one-line messages that a user should see.
    """

    def __init__(
        self,
        model: NumpyModel,
        *,
        name: str = "",
        pooling: Pooling | None = None,
        max_waiting: int = 64,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        def load(unwanted: Unwanted) -> Backend:
            encodes = embeds_only(model.h)
            backend = NumpyVectors(model, name, pooling) if encodes else SerialBackend(NumpyRunner(model, name))

            def give_up() -> None:
                if unwanted():
                    raise EngineError(f"{model.gguf.path}: loading was cancelled")

            model.prepare(give_up)  # weights are dequantised here, and not while somebody waits for an answer
            return backend

        super().__init__(load, max_waiting=max_waiting, warn=warn)


class NumpyRunner:
    """A model that runs in numpy; implements `Runner`.

    Raises:
        UnsupportedError: a model without a tokenizer.
    """

    def __init__(self, model: NumpyModel, name: str) -> None:
        self._model = model
        self.words: Words = model.tokenizer
        self.n_step = model.context.n_ubatch
        info = describe(
            model.gguf.shards[0].path,
            self.words,
            name=name,
            hparams=model.h,
            n_ctx_seq=model.context.n_ctx_seq,
            n_params=model.gguf.n_params,
            model_bytes=model.gguf.tensor_bytes,
        )
        self.info = replace(info, n_batch=model.context.n_batch, takes_slots=False)
        self._logits: Any = None
        self.kind: Kind = "full" if model.cut(1) else "recurrent"  # asked of an empty memory: can it be cut at all?

    def keep(self, n_tokens: int) -> bool:
        """Forget all but the first tokens of the sequence; False, and all forgotten, where memory cannot be cut."""
        if self._model.cut(n_tokens):
            return True
        self._model.reset()
        return n_tokens == 0

    def evaluate(self, tokens: tuple[int, ...], *, rows: int) -> None:
        """Evaluate the next tokens of the sequence, which the model counts itself."""
        found = self._model.evaluate(tokens, all_logits=rows > 1)
        self._logits = found[len(found) - rows :] if rows else None

    def logits(self, row: int) -> Any:
        """A row of logits of the last evaluation."""
        return self._logits[row]

    def chooser(self, sampling: Sampling, index: int) -> "NumpyChooser":
        """What chooses the tokens of an answer.

        Raises:
            ValueError: a sampler or a grammar that is llama.cpp's alone.
        """
        options = asdict(sampling)
        for name in [name for name in options if name not in KNOWN]:
            if options.pop(name) != getattr(DEFAULTS, name):
                raise ValueError(f"{name}: not with the numpy engine; leave it out, or take --engine llama.cpp")
        if sampling.seed is not None:
            options["seed"] = sampling.seed + index
        return NumpyChooser(self._model.sampler(**options), self.logits)

    def close(self) -> None:
        """Let the model go; the file is unmapped with the last array over it."""
        self._logits = None
        del self._model


class NumpyChooser:
    """Chooses from the logits that were computed last; implements `Chooser`."""

    def __init__(self, sampler: Draws, logits: Callable[[int], Any]) -> None:
        self._sampler = sampler
        self._logits = logits

    def remember(self, tokens: Sequence[int]) -> None:
        """Let the penalties see the prompt."""
        self._sampler.remember(tokens)

    def sample(self, row: int) -> int | None:
        """Choose a token, and remember it; None when the logits are no numbers."""
        logits = self._logits(row)
        return self._sampler.choose(logits) if abs(float(logits.max())) < float("inf") else None

    def odds(self) -> Odds:
        """Nothing: `NumpyRunner.chooser` refuses what would ask for them."""
        return ()

    def close(self) -> None:
        """There is nothing to free."""


def check_params(params: Params) -> None:
    """Whether this engine can do what is asked for.

    Raises:
        ValueError: it cannot; the message says what to leave out.
    """
    refused = {
        "-np": (params.n_seq_max != 1, "it runs one sequence"),
        "--device, --rpc": (bool(params.devices), "it computes on the host"),
    }
    for flag, (is_wrong, why) in refused.items():
        if is_wrong:
            raise ValueError(f"{flag}: not with the numpy engine: {why}; leave it out, or take --engine llama.cpp")


def without_effect(params: Params) -> Iterator[str]:
    """Warnings about flags that were given and do nothing with this engine."""
    defaults = Params()
    flags = {"n_batch": "-b", "n_threads": "-t", "use_mmap": "--no-mmap", "use_mlock": "--mlock"}
    for name, flag in flags.items():
        if getattr(params, name) != getattr(defaults, name):
            advice = "; OPENBLAS_NUM_THREADS in the environment sets numpy's threads" if name == "n_threads" else ""
            yield f"{flag} does nothing with the numpy engine{advice}"
