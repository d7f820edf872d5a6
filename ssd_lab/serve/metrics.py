"""`/metrics`: numbers for Prometheus, under vLLM's names where it has one, so that dashboards made for it read them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ssd_lab.engine.status import EngineStatus
from ssd_lab.errors import SsdLabError
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.serve.answering import Answering
from ssd_lab.serve.served import ServedModels

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LABELS = ("model_name", "engine")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
_REASONS = {"cancelled": "abort"}  # vLLM's word
_HISTOGRAMS = {
    "time_to_first_token_seconds": ("From the arrival of a text's request to its first token", _SECONDS),
    "inter_token_latency_seconds": ("From one piece of a text to the next", _SECONDS),
    "request_time_per_output_token_seconds": ("Of a text, its first token left out", _SECONDS),
    "e2e_request_latency_seconds": ("From a text's arrival to its end", _SECONDS),
    "request_queue_time_seconds": ("A text waits for a place in the batch", _SECONDS),
    "request_prefill_time_seconds": ("From its place in the batch to its first token", _SECONDS),
    "request_decode_time_seconds": ("From its first token to its last", _SECONDS),
    "request_inference_time_seconds": ("From its place in the batch to its last token", _SECONDS),
    "request_prompt_tokens": ("Tokens of its prompt", _TOKENS),
    "request_generation_tokens": ("Tokens of the text", _TOKENS),
    "request_params_max_tokens": ("Tokens that it may have", _TOKENS),
}


class ServerMetrics:
    """Histograms of texts that ended, and counters of the engines as they stand. Of the event loop, but for `text`.

    engine: the label that tells replicas apart, vLLM's.
    """

    def __init__(self, models: ServedModels, engine: str = "0") -> None:
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(models, engine))
        self._engine = engine
        self._of_texts = {
            name: Histogram(f"vllm:{name}", f"{meaning}.", _LABELS, registry=self._registry, buckets=buckets)
            for name, (meaning, buckets) in _HISTOGRAMS.items()
        }
        labels = (*_LABELS, "finished_reason")
        self._ended = Counter("vllm:request_success", "Texts by how they ended.", labels, registry=self._registry)
        self._prompt_tokens = Counter("vllm:prompt_tokens", "Of texts that ended.", _LABELS, registry=self._registry)
        self._responses = Counter(
            "ssd_lab:http_responses", "Answers by path and status.", ("path", "status"), registry=self._registry
        )

    def response(self, path: str, status: int) -> None:
        """A request was answered. path: one of a fixed number."""
        self._responses.labels(path, str(status)).inc()

    def piece(self, name: str, gap_s: float) -> None:
        """A text of this model went on, so long after its last piece."""
        self._of_texts["inter_token_latency_seconds"].labels(name, self._engine).observe(gap_s)

    def ended(self, answering: Answering) -> None:
        """Its texts have ended."""
        if answering.submission is not None:
            for sequence in answering.submission.sequences:
                self._text_ended(answering.served.name, sequence)

    def text(self) -> bytes:
        """What Prometheus reads. Waits for the step that each engine is doing."""
        return generate_latest(self._registry)

    def _text_ended(self, name: str, sequence: Sequence) -> None:
        reason = _REASONS.get(sequence.finish_reason or "cancelled", sequence.finish_reason)
        self._ended.labels(name, self._engine, reason).inc()
        self._prompt_tokens.labels(name, self._engine).inc(len(sequence.prompt_ids))
        for histogram, value in _values(sequence).items():
            self._of_texts[histogram].labels(name, self._engine).observe(value)


def _values(sequence: Sequence) -> dict[str, float]:
    """What is known of a text that ended: one that never got a place or a token has fewer numbers."""
    tokens = len(sequence.output_ids)
    values: dict[str, float] = {
        "request_prompt_tokens": len(sequence.prompt_ids),
        "request_generation_tokens": tokens,
        "request_params_max_tokens": sequence.params.max_tokens,
    }
    begun, admitted, first, end = sequence.arrival_s, sequence.admitted_s, sequence.first_token_s, sequence.end_s
    if end is not None:
        values["e2e_request_latency_seconds"] = end - begun
    if admitted is not None:
        values["request_queue_time_seconds"] = admitted - begun
    if first is not None and admitted is not None and end is not None:
        values["time_to_first_token_seconds"] = first - begun
        values["request_prefill_time_seconds"] = first - admitted
        values["request_decode_time_seconds"] = end - first
        values["request_inference_time_seconds"] = end - admitted
        if tokens > 1:
            values["request_time_per_output_token_seconds"] = (end - first) / (tokens - 1)
    return values


class EngineCollector(Collector):
    """Asks each engine how it stands when the numbers are read."""

    def __init__(self, models: ServedModels, engine: str) -> None:
        self._models, self._engine = models, engine

    def describe(self) -> Iterator[Metric]:
        """Nothing is asked when the collector is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every number of every engine that is alive."""
        found = {}
        for model in self._models:
            try:
                found[model.name] = model.llm.status()
            except SsdLabError:  # it has ended: /health says so
                continue
        for name, meaning, values in _GAUGES:
            gauge = GaugeMetricFamily(name, meaning, labels=_LABELS)
            for model_name, status in found.items():
                gauge.add_metric((model_name, self._engine), values(status))
            yield gauge
        for name, meaning, label, counts in _COUNTERS:
            counter = CounterMetricFamily(name, meaning, labels=_LABELS if label is None else (*_LABELS, label))
            for model_name, status in found.items():
                for value, count in counts(status).items():
                    counter.add_metric(
                        (model_name, self._engine) if label is None else (model_name, self._engine, value), count
                    )
            yield counter


def _drafts(status: EngineStatus) -> int:
    """Rounds of a sequence in which something was drafted."""
    return sum(sum(counts) for counts in status.totals.outcomes[1:])


def _past_end(status: EngineStatus) -> int:
    """Tokens that verification decided and no text has, since one before them ended it."""
    return status.totals.accepted + status.totals.sequence_rounds - status.totals.emitted


_GAUGES = (
    ("vllm:num_requests_running", "Texts in the batch.", lambda s: s.running),
    ("vllm:num_requests_waiting", "Texts that wait for a place in it.", lambda s: s.waiting),
    ("vllm:kv_cache_usage_perc", "Share of the KV blocks that texts hold, 0 to 1.",
     lambda s: 1 - s.free_blocks / s.num_blocks),
    ("ssd_lab:kv_blocks", "KV blocks in all.", lambda s: s.num_blocks),
    ("ssd_lab:kv_blocks_free", "KV blocks that no text holds.", lambda s: s.free_blocks),
    ("ssd_lab:draft_lost", "1 if the draft was given up and the engine decodes without.",
     lambda s: int(s.degraded is not None)),
)  # fmt: skip
_COUNTERS = (
    ("vllm:spec_decode_num_drafts", "Rounds of a text with a draft.", None, lambda s: {"": _drafts(s)}),
    ("vllm:spec_decode_num_draft_tokens", "Tokens drafted.", None, lambda s: {"": s.totals.drafted}),
    ("vllm:spec_decode_num_accepted_tokens", "Drafted tokens that were accepted, those past a stop too.", None,
     lambda s: {"": s.totals.accepted}),
    ("vllm:spec_decode_num_accepted_tokens_per_pos", "The same by place in the draft.", "position",
     lambda s: {str(place): count for place, count in enumerate(s.totals.accepted_at)}),
    ("vllm:generation_tokens", "Tokens that texts have.", None, lambda s: {"": s.totals.emitted}),
    ("vllm:num_preemptions", "A text gave up its KV blocks for a while.", None, lambda s: {"": s.preemptions}),
    ("ssd_lab:rounds", "Verifications of the batch.", None, lambda s: {"": s.totals.rounds}),
    ("ssd_lab:text_rounds", "Texts in those, summed.", None, lambda s: {"": s.totals.sequence_rounds}),
    ("ssd_lab:tokens_past_end", "Tokens that were decided behind the end of a text, and dropped.", None,
     lambda s: {"": _past_end(s)}),
    ("ssd_lab:cache_lookups", "Was the outcome in the speculation cache?", "result",
     lambda s: {"hit": s.totals.hits, "miss": s.totals.misses}),
    ("ssd_lab:drafts_by_path", "Rounds of a text by what drafted (hit, jit, fast, draft, tree, expected, none ...).",
     "path", lambda s: s.totals.origins),
    ("ssd_lab:draft_tokens_by_path", "Tokens drafted, by what drafted them.", "path", lambda s: s.totals.drafted_by),
    ("ssd_lab:accepted_tokens_by_path", "Those that were accepted.", "path", lambda s: s.totals.accepted_by),
    ("ssd_lab:decode_seconds", "Time in rounds.", None, lambda s: {"": s.totals.decode_time_s}),
    ("ssd_lab:prefill_seconds", "Time on prompts.", None, lambda s: {"": s.totals.prefill_time_s}),
    ("ssd_lab:preparation_seconds", "Time of capturing and compiling.", None, lambda s: {"": s.totals.preparation_s}),
)  # fmt: skip
