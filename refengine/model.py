r"""A model that runs in numpy: `load` a file, then ask for logits, or generate.

>>> model = load(ggufphys.embedded.MODEL)            # doctest: +SKIP
>>> model.logits(model.tokenize("def "))             # doctest: +SKIP
>>> print(*model.generate("import os\n", 50), sep="") # doctest: +SKIP
"""

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from ggufphys.arch import read_hparams, rule_for
from ggufphys.arch.cache_types import check_cache_types, kinds_of_layers
from ggufphys.arch.caches import FullKV
from ggufphys.context import pad_ctx, resolve
from ggufphys.errors import UnsupportedError
from ggufphys.gguf import GGUFFile, open_gguf
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.batch import Batch, StateRows
from ggufphys.graph.devices.runs import require_model
from ggufphys.graph.ir import Graph
from ggufphys.graph.models import MODELS
from ggufphys.loads.check import require_data
from ggufphys.memory.terms import Quantity
from ggufphys.params import Params
from refengine.arrays import keep_temporaries
from refengine.batch import Numbers, Tokens, physical_batches, token_ids
from refengine.blocks import F32
from refengine.execute import Program, Trace
from refengine.generate import sampler_for, text_of, tokens_behind
from refengine.inputs.filling import Filling
from refengine.inputs.table import FILL, has_alibi
from refengine.memory.cells import Cells
from refengine.memory.counts import block_counts, ratios_of
from refengine.memory.memory import Memory
from refengine.memory.states import Taken
from refengine.ops import Numerics
from refengine.peers.simd import detected
from refengine.sample import Sampler, Sampling
from refengine.text.open import AnyTokenizer, open_tokenizer
from refengine.weights import Hold, Weights

MOST_CELLS: Final = 4096  # of the context, unless more are asked for
TARGETLESS: Final = "a draft model, which goes on from what its target computed: the numpy engine runs models alone"
PROGRAMS: Final = 8  # graphs kept ready: decode, a whole batch, the rest of a prompt, of some sequences each


def load(
    path: str | os.PathLike[str],
    *,
    type_k: str = "f16",
    type_v: str = "f16",
    flash_attn: bool = True,
    emulate: bool = False,
    hold: Hold = "f32",
    n_ctx: int = 0,
    n_ubatch: int = 512,
    n_seq_max: int = 1,
    kv_unified: bool = False,
    swa_full: bool = False,
    n_threads: int = 0,
) -> "Model":
    """Open a model file for computing with it.

    Args:
        path: a GGUF file; of a split model any shard.
        type_k: of the cache of keys: f32, f16, bf16, q8_0, ...
        type_v: of the cache of values.
        flash_attn: attention as one operation, as llama.cpp does by default, or as products and a softmax.
        emulate: quantise activations as ggml's dot products with quantised weights do (else those are exact), add up
            what attention takes from an F16 cache in F16 (else in F32), and on x86 add up everything in ggml's order,
            to the bit, which takes much longer.
        hold: "f32" keeps dequantised matrices in memory, "quantised" dequantises a piece of them at a time.
        n_ctx: tokens of context; 0 for as many as in training, but at most 4096.
        n_ubatch: tokens that are computed at once.
        n_seq_max: sequences that there may be, for `Model.decode`.
        kv_unified: they share the cells of one cache, else each has as many of its own.
        swa_full: layers with windows keep all positions too.
        n_threads: llama.cpp's number of threads that is followed: it divides a long cache among them when it adds up
            in F16. 0 for as many as there are cores. It does not limit numpy's own.

    Raises:
        GGUFError: not a readable GGUF, or what a model needs is missing in it.
        UnsupportedError: no model, or of an architecture whose graph is not written.
        ValueError: parameters that llama.cpp would refuse.
        OSError: the file cannot be read.
    """
    gguf = open_gguf(path)
    params = Params(
        n_ctx=n_ctx, n_batch=n_ubatch, n_ubatch=n_ubatch, type_k=type_k, type_v=type_v,
        flash_attn="on" if flash_attn else "off", n_seq_max=n_seq_max, kv_unified=kv_unified, swa_full=swa_full,
    )  # fmt: skip
    # What ggml's code is like, llama.cpp has to say: it is loaded only where that is asked for.
    simd = detected() if emulate else None
    return Model(gguf, params, hold, Numerics(emulate=emulate, n_threads=n_threads or os.cpu_count() or 1, simd=simd))


class Model:
    """One model in one context. `logits` starts from an empty cache, `evaluate` goes on from what was evaluated.

    `decode` takes batches of several sequences; the other functions speak of sequence 0.

    Raises as `load` does.
    """

    def __init__(self, gguf: GGUFFile, params: Params, hold: Hold, numerics: Numerics) -> None:
        require_model(gguf)
        arch = gguf.architecture
        rule = rule_for(arch)
        if arch not in MODELS:
            raise UnsupportedError(
                f"{gguf.path}: the graph of architecture {arch!r} is not written yet, so it cannot be computed; "
                f"those that are: {', '.join(sorted(MODELS))}"
            )
        require_data(gguf)
        if any(shard.header.byte_order != sys.byteorder for shard in gguf.shards):
            raise UnsupportedError(
                f"{gguf.path}: its weights are {gguf.shards[0].header.byte_order}-endian, unlike this machine: "
                "llama.cpp's gguf-py/gguf/scripts/gguf_convert_endian.py turns them round"
            )
        if why_not := rule.alone(gguf) or (TARGETLESS if rule.is_draft else ""):
            raise UnsupportedError(f"{gguf.path}: {why_not}")
        self.gguf = gguf
        self.h = read_hparams(gguf)
        self.numerics = numerics
        n_ctx = params.n_ctx or min(self.h.n_ctx_train, MOST_CELLS)
        self.context = resolve(
            replace(params, n_ctx=n_ctx),
            n_ctx_train=self.h.n_ctx_train, causal_attn=self.h.causal_attn,
            flash_attn_possible=rule.flash_attn, rollback_possible=rule.rollback,
            has_encoder=rule.has_encoder,
        )  # fmt: skip
        if why_not := rule.aborts(self.context, self.h):
            raise ValueError(f"{gguf.path}: {why_not}")
        try:
            check_cache_types(self.h, rule, kinds_of_layers(self.h, rule), self.context)
        except ValueError as error:
            raise ValueError(f"{gguf.path}: {error}") from None
        keep_temporaries()
        self.weights = Weights(gguf, hold)
        self._layouts = Layouts(gguf, self.h, rule)
        self._layers = tuple(rule.layers(self.h))
        self._ratios = ratios_of(self.h, self._layers)
        self._programs: OrderedDict[Batch, Program] = OrderedDict()
        self.reset()

    def reset(self) -> None:
        """Forget everything that was evaluated."""
        self._memory = Memory(self.context, self._layers)
        self._programs.clear()
        self._lengths = [0] * self.context.n_seq_max

    def prepare(self, watch: Callable[[], object] = lambda: None) -> None:
        """Dequantise the weights now and not with the first token, by computing one and forgetting it.

        `watch` is called before each matrix; what it raises ends the work.
        """
        before, self.weights.watch = self.weights.watch, watch
        try:
            with suppress(UnsupportedError):  # an encoder has no logits, but has been computed by then
                self.evaluate([0], all_logits=False)
        finally:
            self.weights.watch = before
            self.reset()

    # -- logits

    def logits(self, tokens: Sequence[int]) -> F32:
        """Logits of every position of one sequence from an empty cache: `(n_tokens, n_vocab)`.

        Raises:
            ValueError: no tokens, more than the context holds, or ids outside of the vocabulary.
            TypeError: something else than whole numbers: text, or floats.
        """
        self.reset()
        return self.evaluate(tokens)

    def embeddings(self, tokens: Sequence[int]) -> F32:
        """What an encoder makes of each token of one sequence, which sees all the others: `(n_tokens, n_embd)`.

        Raises:
            ValueError: as `logits`, or more tokens than are computed at once.
        """
        self.reset()
        ids = token_ids(tokens)
        n = len(ids)
        batch = Tokens(ids=ids, positions=np.arange(n), sequences=np.zeros(n, np.int64), wanted=None)
        self._check(batch)
        self._check_at_once(n)
        return self._run(batch, 1, None)

    def evaluate(self, tokens: Sequence[int], *, all_logits: bool = True, trace: Trace | None = None) -> F32:
        """Append tokens to the sequence: logits of each, `(n_tokens, n_vocab)`, or of the last alone, `(1, n_vocab)`.

        Raises as `logits` does.
        """
        ids = token_ids(tokens)
        start, n = self._lengths[0], len(ids)
        return self.decode(
            Tokens(
                ids=ids, positions=np.arange(start, start + n),
                sequences=np.zeros(n, np.int64), wanted=None if all_logits else np.arange(n - 1, n),
            ),
            trace,
        )  # fmt: skip

    def decode(self, batch: Tokens, trace: Trace | None = None) -> F32:
        """Append tokens of any sequences to these: logits of those that are wanted, in order, `(n_wanted, n_vocab)`.

        Raises:
            ValueError: as `logits`, or positions that do not follow those before, or too many sequences.
        """
        self._check(batch)
        if not any(self._layers):
            self._check_at_once(len(batch))
        logits = np.empty((len(batch.outputs), self.h.n_vocab), np.float32)
        for numbers, n_seqs in physical_batches(batch.sequences, self.context.n_ubatch, self._memory.split):
            part = batch.part(numbers)
            wanted = np.searchsorted(batch.outputs, numbers[part.outputs])
            if not len(wanted):
                part = _last_wanted(part)
            rows = self._run(part, n_seqs, trace)[: len(wanted)]
            if rows.shape[1] != self.h.n_vocab:
                raise UnsupportedError(f"{self.gguf.path}: an encoder, which gives embeddings and no logits")
            logits[wanted] = rows
        return logits

    def _check_at_once(self, n_tokens: int) -> None:
        """Raise for more tokens than an encoder can see at once."""
        if n_tokens > self.context.n_ubatch:
            raise ValueError(
                f"{n_tokens} tokens, which must all be computed at once, but at most {self.context.n_ubatch} are: "
                "use more n_ubatch"
            )

    def _check(self, batch: Tokens) -> None:
        """Raise for a batch that llama.cpp would not take."""
        if not len(batch):
            raise ValueError("no tokens: expected at least one")
        low, high = batch.ids.min(), batch.ids.max()
        if low < 0 or high >= self.h.n_vocab:
            raise ValueError(f"token ids from {low} to {high}, expected 0 to {self.h.n_vocab - 1}")
        for sequence in np.unique(batch.sequences).tolist():
            if not 0 <= sequence < self.context.n_seq_max:
                raise ValueError(
                    f"sequence {sequence} of at most {self.context.n_seq_max}, counted from 0: use more n_seq_max"
                )
            positions, start = batch.positions[batch.sequences == sequence], self._lengths[sequence]
            if not np.array_equal(positions, np.arange(start, start + len(positions))):
                raise ValueError(
                    f"positions {positions[0]} to {positions[-1]} of sequence {sequence}, expected "
                    f"{len(positions)} from {start} on, one after the other"
                )
            if positions[-1] >= self.context.n_ctx_seq:
                raise ValueError(
                    f"position {positions[-1]} is beyond the context of {self.context.n_ctx_seq} tokens: use more n_ctx"
                )

    def _run(self, tokens: Tokens, n_seqs: int, trace: Trace | None) -> F32:
        memory = self._memory
        batch, taken, states = _take(memory, tokens, n_seqs, self._ratios)
        program = self._program(batch)
        filling = Filling(
            tokens=tokens, memory=memory, taken=taken, states=states, keys=self._layouts.keys,
            causal=self.h.causal_attn, alibi=has_alibi(program.graph),
        )  # fmt: skip
        for tensor, array in program.inputs.items():
            fill = FILL.get(tensor.name)
            if fill is None:
                raise UnsupportedError(
                    f"{self.gguf.path}: the graph has an input {tensor.name!r}, which we cannot fill yet"
                )
            fill(tensor, array, filling)
        program.run(trace)
        for sequence in np.unique(tokens.sequences):
            self._lengths[sequence] = int(tokens.positions[tokens.sequences == sequence].max()) + 1
        *_, logits = program.outputs.values()
        return np.array(logits[0, 0])

    def batches(self, tokens: Iterable[Tokens]) -> Iterator[Batch]:
        """The physical batches that `decode` would compute from an empty memory, one after the other."""
        memory = Memory(self.context, self._layers)
        for batch in tokens:
            for numbers, n_seqs in physical_batches(batch.sequences, self.context.n_ubatch, memory.split):
                part = batch.part(numbers)
                yield _take(memory, part if len(part.outputs) else _last_wanted(part), n_seqs, self._ratios)[0]

    def graph(self, batch: Batch) -> Graph:
        """The graph of a physical batch."""
        return self._layouts.graph(self.context, batch)

    def held_bytes(self) -> dict[Quantity, int]:
        """Bytes that are held now, by llama.cpp's quantities: weights mapped and as F32, caches, graphs' buffers."""
        return {
            "model": self.weights.mapped_bytes + self.weights.held_bytes,
            "context": self._memory.held_bytes,
            "compute": sum(program.buffer_bytes for program in self._programs.values()),
        }

    def _program(self, batch: Batch) -> Program:
        program = self._programs.get(batch)
        if program is None:
            if len(self._programs) == PROGRAMS:
                self._programs.popitem(last=False)
            program = self._programs[batch] = Program(self.graph(batch), self.weights, self._memory.raw, self.numerics)
        self._programs.move_to_end(batch)
        return program

    # -- text

    @property
    def n_past(self) -> int:
        """Tokens of the sequence that were evaluated: the position of the next."""
        return self._lengths[0]

    @property
    def n_ctx_seq(self) -> int:
        """Tokens that the sequence may have."""
        return self.context.n_ctx_seq

    def cut(self, n_tokens: int) -> bool:
        """Keep the sequence's first `n_tokens` alone; False, and nothing done, where the memory cannot be cut.

        A recurrent state is the last one only, and the cache of a window has dropped what lies before it: of such
        memories nothing can be kept.
        """
        if n_tokens and any(type(cache) is not FullKV for layer in self._layers for cache in layer):
            return False
        self._memory.remove(0, n_tokens)
        self._lengths[0] = min(n_tokens, self._lengths[0])
        return True

    @cached_property
    def tokenizer(self) -> AnyTokenizer:
        """The model's own. Raises as `refengine.text.open.open_tokenizer` does."""
        return open_tokenizer(self.gguf)

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Tokens of a prompt, special ones read and BOS put before it as the model wants."""
        return self.tokenizer.tokenize(text)

    def sampler(self, **options: Any) -> Sampler:
        """What chooses tokens; `options` are the fields of `Sampling`. Raises ValueError as that does."""
        return sampler_for(self.tokenizer, Sampling(**options))

    def generate(
        self, prompt: str | Sequence[int], n_tokens: int | None = None, sampling: Sampling | None = None
    ) -> Iterator[str]:
        """What the model writes behind a prompt, from an empty cache, in pieces as soon as characters are whole.

        Args:
            prompt: a text, or tokens.
            n_tokens: at most so many; None for until the model ends or the context is full.
            sampling: how to choose; the likeliest token unless it says otherwise.

        Raises:
            ValueError: no tokens, or more than the context holds.
            GGUFError, MissingExtraError, UnsupportedError: the vocabulary cannot be used.
        """
        tokens = self.tokenize(prompt) if isinstance(prompt, str) else prompt
        self.reset()
        sampler = sampler_for(self.tokenizer, sampling)
        return text_of(tokens_behind(self, tokens, n_tokens, sampler), self.tokenizer)

    def generate_tokens(
        self, tokens: Sequence[int], n_tokens: int | None = None, sampling: Sampling | None = None
    ) -> Iterator[int]:
        """Append tokens, then `n_tokens` more, each chosen from the logits behind the one before.

        Raises as `logits` does.
        """
        return tokens_behind(self, tokens, n_tokens, Sampler(sampling))


def _take(
    memory: Memory, tokens: Tokens, n_seqs: int, ratios: Sequence[int]
) -> tuple[Batch, dict[Cells, Numbers], Taken | None]:
    """Give the tokens of a physical batch their places in memory: its shape, and those places."""
    taken = memory.take(tokens)
    states = memory.take_states(tokens.sequences[:: len(tokens) // n_seqs].tolist())
    n_kv = [0, *(cells.n_kv(tokens) for cells in taken)]
    if ratios:  # blocks reach further back than windows
        n_kv.append(pad_ctx(int(tokens.positions.max()) + 1))
    batch = Batch(
        n_tokens=len(tokens),
        n_seqs=n_seqs,
        n_outputs=len(tokens.outputs),
        n_kv=max(n_kv),
        first_stream=int(tokens.sequences[0]) if memory.split == "consecutive" else 0,
        states=states.rows if states is not None else StateRows(),
        blocks=block_counts(ratios, tokens, memory.lengths() if ratios else ()),
    )
    return batch, taken, states


def _last_wanted(tokens: Tokens) -> Tokens:
    """A batch with the last token's logits: graphs are of at least one."""
    return replace(tokens, wanted=np.array([len(tokens) - 1]))
