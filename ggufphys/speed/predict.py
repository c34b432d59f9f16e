"""How fast will it run? Tokens a second of reading a prompt and of generating, seconds of loading; each with a range.

A figure's range is what the machine's rates allow for: narrow where it was calibrated, wide where a data sheet is all
there is, and wider by the part of the time for which nothing like it was measured.
"""

from collections.abc import Sequence
from itertools import pairwise

from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.file import require_file
from ggufphys.graph.batch import Batch
from ggufphys.graph.devices.placed import REPACKED
from ggufphys.graph.devices.runs import Run, Runs
from ggufphys.params import Params, params_or_default
from ggufphys.speed.batches import check_lengths, decode_batch, prompt_batch, prompt_length, with_sequences
from ggufphys.speed.nodes import Limit, Seconds
from ggufphys.speed.rates import Basis, Machine
from ggufphys.speed.steps import Steps, StepSeconds
from ggufphys.units import require_kind

GUESSED: tuple[float, float] = (0.5, 2.0)  # what seconds may be less and more of which nothing alike was measured
LOAD_BAND: tuple[float, float] = (0.5, 2.0)  # of seconds of loading
MAX_POINTS = 9  # batches of a prompt that are looked at; between them time grows in straight lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A predicted figure and its range."""

    value: float
    low: float
    high: float

    @property
    def inverse(self) -> "Figure":
        """Of seconds a rate, and of a rate seconds."""
        return Figure(value=1 / self.value, low=1 / self.high, high=1 / self.low)

    def times(self, factor: float) -> "Figure":
        """So many times as much."""
        return Figure(value=factor * self.value, low=factor * self.low, high=factor * self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpeed:
    """Reading a prompt, or one step of decoding: tokens a second, seconds, what limits them, and where they go."""

    n_tokens: int
    depth: int
    tok_per_s: Figure
    seconds: Figure
    limit: Limit
    steps: Sequence[tuple[float, StepSeconds]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedPrediction:
    """Of one run. `decode` is None for models that generate nothing; loads are None where no rate of a disk is known.

    `load` reads the file from the disk, `load_warm` from the page cache.
    """

    machine: str
    basis: Basis
    source: str
    n_threads: int
    prefill: PhaseSpeed
    decode: PhaseSpeed | None
    load: Figure | None
    load_warm: Figure | None
    notes: tuple[str, ...] = ()

    @property
    def limit(self) -> Limit:
        """Of decoding; of reading where there is no decoding."""
        return (self.decode or self.prefill).limit


def predict_speed(
    gguf: GGUFFile, params: Params | None, machine: Machine, *, prefill: int = 0, depth: int = 0, batch: int = 1
) -> SpeedPrediction:
    """Predict how fast a model runs on a machine.

    Args:
        gguf: an open file.
        params: how it will be run; n_threads 0 for the most that the machine was measured with.
        machine: what it runs on.
        prefill: tokens of a prompt; 0 for 512, or as many as fit.
        depth: tokens that each sequence has in its cache beforehand.
        batch: sequences that decode one token each.

    Raises:
        TypeError: an argument of another kind, such as a path.
        UnsupportedError: the file is no model, or its architecture has no rule yet.
        GGUFError: a key or a tensor that the prediction needs is missing or malformed.
        CalibrationError: the machine has no rates for a device that is used.
        ValueError: llama.cpp would refuse the parameters, or these tokens do not fit into the context.
    """
    require_file(gguf)
    require_kind(machine, Machine, "machine", 'read_machine("calibration.json")')
    params = params_or_default(params)
    speeds = Speeds(Runs(gguf).run(params), machine, params.n_threads)
    return speeds.predict(prefill=prefill, depth=depth, batch=batch)


class Speeds:
    """One way of running a model on one machine, asked for one length after another."""

    def __init__(self, run: Run, machine: Machine, n_threads: int = 0) -> None:
        hosts = [p.n_threads for p in machine.processors if p.name == "CPU"]
        self.n_threads = n_threads or max(hosts, default=1)
        self.run, self.machine, self.context = run, machine, run.context
        self.steps = Steps(run, machine, self.n_threads)
        self.has_cache = any(run.layouts.caches)

    def predict(self, *, prefill: int = 0, depth: int = 0, batch: int = 1) -> SpeedPrediction:
        """See `predict_speed`."""
        prefill = prompt_length(self.context, prefill, depth)
        check_lengths(self.context, prefill, depth, batch)
        load, load_warm = self.loads()
        notes = []
        if self.n_threads != self.steps.host.n_threads and self.steps.host.n_threads:
            notes.append(
                f"{self.n_threads} threads were not measured: figures are those of {self.steps.host.n_threads}"
            )
        return SpeedPrediction(
            machine=self.machine.name,
            basis=self.machine.basis,
            source=self.machine.source,
            n_threads=self.n_threads,
            prefill=self.prefill(prefill, depth),
            decode=self.decode(batch, depth) if self.has_cache else None,
            load=load,
            load_warm=load_warm,
            notes=(*self.machine.notes, *notes),
        )

    def decode(self, n_seqs: int = 1, depth: int = 0) -> PhaseSpeed:
        """One token for each of so many sequences; tokens a second of all together."""
        context = with_sequences(self.context, n_seqs)
        step = self.steps.step(context, decode_batch(context, n_seqs, depth), depth)
        return self._phase(n_seqs, depth, [(1.0, step)])

    def prefill(self, n_tokens: int, depth: int = 0) -> PhaseSpeed:
        """A prompt of one sequence in batches of n_ubatch, the logits of its last token wanted."""
        context = with_sequences(self.context, 1)
        if not self.has_cache:
            whole = Batch(n_tokens=n_tokens, n_seqs=1, n_outputs=n_tokens, n_kv=0)
            return self._phase(n_tokens, 0, [(1.0, self.steps.step(context, whole, 0))])
        n_ubatch = context.n_ubatch
        n_last = (n_tokens - 1) % n_ubatch + 1
        n_full = (n_tokens - n_last) // n_ubatch
        steps = []
        for times, i in _sampled(n_full):
            start = depth + i * n_ubatch
            steps.append((times, self.steps.step(context, prompt_batch(n_ubatch, start), start)))
        start = depth + n_full * n_ubatch
        steps.append((1.0, self.steps.step(context, prompt_batch(n_last, start, 1), start)))
        return self._phase(n_tokens, depth, steps)

    def loads(self) -> tuple[Figure | None, Figure | None]:
        """Seconds of loading from the disk and from the page cache: the file once, its tokens, and what is repacked."""
        machine, gguf = self.machine, self.run.layouts.gguf
        nbytes = sum(t.nbytes or 0 for t in gguf.tensors)
        repacked = sum(t.nbytes or 0 for t in self.run.placed.weights.get(REPACKED, ()))
        repack_s = repacked / machine.repack_bytes_per_s if machine.repack_bytes_per_s else 0.0
        tokens_s = machine.token_s * len(gguf.get_array("tokenizer.ggml.tokens") or ())

        def figure(rate: float) -> Figure | None:
            return _figure(nbytes / rate + repack_s + tokens_s, 0.0, LOAD_BAND) if rate else None

        return figure(machine.disk_bytes_per_s), figure(machine.cached_bytes_per_s)

    def _phase(self, n_tokens: int, depth: int, steps: Sequence[tuple[float, StepSeconds]]) -> PhaseSpeed:
        total = Seconds()
        for times, step in steps:
            total = total.plus(step.total, times)
        seconds = _figure(total.total, total.guessed, self.steps.host.band)
        return PhaseSpeed(
            n_tokens=n_tokens,
            depth=depth,
            tok_per_s=seconds.inverse.times(n_tokens),
            seconds=seconds,
            limit=total.limit,
            steps=steps,
        )


def _figure(seconds: float, guessed: float, band: tuple[float, float]) -> Figure:
    known = seconds - guessed
    return Figure(
        value=seconds,
        low=known * band[0] + guessed * GUESSED[0],
        high=known * band[1] + guessed * GUESSED[1],
    )


def _sampled(n: int) -> list[tuple[float, int]]:
    """Some of `n` batches and how many each stands for: sums are those of straight lines between them."""
    if n <= MAX_POINTS:
        return [(1.0, i) for i in range(n)]
    points = [round(i * (n - 1) / (MAX_POINTS - 1)) for i in range(MAX_POINTS)]
    weights = dict.fromkeys(points, 0.0)
    for a, b in pairwise(points):
        for i in range(a, b):
            share = (i - a) / (b - a)
            weights[a] += 1 - share
            weights[b] += share
    weights[points[-1]] += 1
    return [(weight, i) for i, weight in weights.items()]
