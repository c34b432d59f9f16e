"""What Prometheus reads: llama-server's names where they mean the same, and histograms that it lacks.

Counters are the engine's own figures, read when asked for; histograms are filled as answers go out.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as Count
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.access.refusals import Refusal
from server.accounts.forecast import Forecast
from server.accounts.ledger import Ledger, resident
from server.engine.counters import Counters
from server.engine.events import Failed, Finished, FinishReason, Piece
from server.engine.protocol import Engine
from server.engine.scheduler.slots import Reuse

_FAST: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SLOW: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
_REUSE: Final = tuple(reason for reason in Reuse if reason)
_FINISHED: Final[tuple[str, ...]] = get_args(FinishReason)
GAPS: Final = 64  # of an answer that are counted at a time: each alone takes longer than to hand out a token

# llama-server's name, what it is, the engine's figure
_COUNTERS: Final = (
    ("llamacpp:prompt_tokens", "Prompt tokens evaluated", "n_prompt_tokens"),
    ("llamacpp:prompt_tokens_cached", "Prompt tokens that memory still held", "n_cached_tokens"),
    ("llamacpp:tokens_predicted", "Tokens generated", "n_generated_tokens"),
    ("llamacpp:n_decode", "llama_decode calls", "n_steps"),
    ("ggufphys:texts_embedded", "Texts embedded", "n_texts"),
    ("ggufphys:decode_seconds", "Seconds in llama_decode", "decode_s"),
    ("ggufphys:preemptions", "Answers put back for want of room", "n_preemptions"),
    ("ggufphys:cache_full", "Times that the cache had no room for a batch", "n_full"),
    ("ggufphys:aborts", "Decodes ended in the middle", "n_aborts"),
    ("ggufphys:guess_seconds", "Seconds spent in guessing", "guess_s"),
    ("llamacpp:spec_decode_num_drafts", "Steps in which tokens were guessed", "n_drafts"),
    ("llamacpp:spec_decode_num_draft_tokens", "Tokens guessed", "n_drafted"),
    ("llamacpp:spec_decode_num_accepted_tokens", "Tokens guessed right", "n_draft_accepted"),
    ("ggufphys:worker_restarts", "Worker processes that died", "n_restarts"),
)
_GAUGES: Final = (
    ("llamacpp:requests_processing", "Answers under way", "n_active"),
    ("llamacpp:requests_deferred", "Answers that wait", "n_waiting"),
    ("llamacpp:n_tokens_max", "Most cells in use at a time", "n_tokens_max"),
    ("ggufphys:cells", "Cells of the cache", "n_cells"),
    ("ggufphys:cells_used", "Cells in use, for later requests too", "n_cells_used"),
    ("ggufphys:cells_busy", "Cells that what is under way needs", "n_cells_busy"),
)


class Metrics:
    """One server's metrics."""

    def __init__(self, engine: Engine, ledger: Ledger, forecast: Forecast) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(engine))
        self._registry.register(_Bytes(ledger))
        self._registry.register(_Speeds(forecast))

        def histogram(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"ggufphys:{name}_seconds", what, registry=self._registry, buckets=buckets)

        self.ttft = histogram("time_to_first_token", "From the request to its first text", _SLOW)
        self.gap = histogram("inter_token", "Between two pieces of an answer", _FAST)
        self.e2e = histogram("request", "From the request to the answer's end", _SLOW)
        self.queued = histogram("queue", "From the request to the prompt's evaluation", _SLOW)
        self._refused = Count(
            "ggufphys:requests_rejected", "Requests that were refused", ("reason",), registry=self._registry
        )
        for reason in Refusal:  # from the start: `rate` sees nothing of a series that begins with its first event
            self._refused.labels(reason)

    def watch(self) -> "Watch":
        """What follows the answers to one request."""
        return Watch(self)

    def failed(self, event: Failed) -> None:
        """A request broke off; one that came too late to its turn was refused, if late."""
        if event.fault == "deadline":
            self.refused(Refusal.DEADLINE)

    def refused(self, reason: Refusal) -> None:
        """A request was refused."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """All of it in Prometheus's format."""
        return generate_latest(self._registry)


class Watch:
    """Times of one request's answers, into histograms."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._began = time.perf_counter()
        self._last: dict[tuple[int, int], float] = {}
        self._gaps_s: list[float] = []  # that are not in the histogram yet

    def piece(self, number: int, event: Piece) -> float:
        """Note that text came; when the last of it did, by time.perf_counter."""
        times_s = event.times_s or (time.perf_counter(),)
        self.pieces(times_s, (number, event.index))
        return times_s[-1]

    def pieces(self, times_s: Sequence[float], of: tuple[int, int] = (0, 0)) -> None:
        """Note texts of an answer (request, index) that came then, by time.perf_counter."""
        last = self._last.get(of)
        for at_s in times_s:
            if last is None:
                self._metrics.ttft.observe(max(0.0, at_s - self._began))
            else:
                self._gaps_s.append(max(0.0, at_s - last))
            self._last[of] = last = at_s
        if len(self._gaps_s) >= GAPS:
            self.flush()

    def flush(self) -> None:
        """Count what is not counted yet: nothing more comes of the request, however it ended."""
        for gap_s in self._gaps_s:
            self._metrics.gap.observe(gap_s)
        self._gaps_s.clear()

    def finished(self, event: Finished) -> None:
        """An answer is over."""
        self._metrics.e2e.observe(time.perf_counter() - self._began)
        self._metrics.queued.observe(event.timings.queue_s)


class _Bytes(Collector):
    """Memory as predicted and as the processes hold it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        predicted = self._ledger.predicted
        if not isinstance(predicted, str):
            family = GaugeMetricFamily("ggufphys:predicted_bytes", "Predicted memory", labels=("quantity",))
            for quantity in ("model", "context", "compute", "output", "attachment", "process"):
                family.add_metric((quantity,), getattr(predicted, f"{quantity}_bytes"))
            yield family
        family = GaugeMetricFamily("ggufphys:resident_bytes", "Memory held, by what backs it", labels=("role", "kind"))
        for role, pid in self._ledger.pids.all():
            for kind, nbytes in resident(pid).items():
                family.add_metric((role, kind.removesuffix("_bytes")), nbytes)
        yield family


class _Speeds(Collector):
    """How fast answers come, llama-server's names; absent while nothing is known."""

    def __init__(self, forecast: Forecast) -> None:
        self._forecast = forecast

    def collect(self) -> Iterator[Metric]:
        rates = self._forecast.rates
        if rates is None or rates.basis != "measured":
            return
        yield GaugeMetricFamily("llamacpp:prompt_tokens_seconds", "Prompt tokens a second", value=rates.prompt_per_s)
        yield GaugeMetricFamily("llamacpp:predicted_tokens_seconds", "Tokens a second", value=rates.decode_per_s)


class _Figures(Collector):
    """The engine's counters, as they are when they are asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        counters: Counters = self._engine.counters
        for name, what, figure in _COUNTERS:
            yield CounterMetricFamily(name, what, value=getattr(counters, figure))
        for name, what, figure in _GAUGES:
            yield GaugeMetricFamily(name, what, value=getattr(counters, figure))
        # tokens that come out of decodes, without those guessed, and texts: as many as took part
        n_rows = counters.n_generated_tokens - counters.n_draft_accepted + counters.n_texts
        busy = n_rows / max(counters.n_steps, 1)
        yield GaugeMetricFamily("llamacpp:n_busy_slots_per_decode", "Answers generated together", value=busy)
        for name, what, reasons, by in (
            ("ggufphys:tokens_reevaluated", "Prompt tokens evaluated again, by reason", _REUSE, counters.reevaluated),
            ("ggufphys:answers_finished", "Answers that ended, by reason", _FINISHED, counters.finished),
        ):
            family = CounterMetricFamily(name, what, labels=("reason",))
            for reason in reasons:  # from the start, as of refusals
                family.add_metric((reason,), by[reason])
            yield family
