"""What users wait for besides rounds: prompts, alone and at once, long ones beside others, and runs as a whole."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from ssd_lab import demo
from ssd_lab.config import SamplingParams
from ssd_lab.display.tables import Table
from ssd_lab.llm import LLM
from ssd_lab.models.loader import LoadedModel
from ssd_lab.trace import Trace

Cells = list[str]
OnLine = Callable[[str], None]

LENGTHS = (512, 2048, 7000)
TOGETHER = (16, 100)  # prompts, and tokens of each
REPEATS, UNTIMED = 5, 4  # a shape becomes a graph when it comes for the third time
DECODING, LATE = 8, 2048  # requests that decode, and tokens of the prompt that comes to them
REQUESTS, OUTPUT, BATCH = 48, 128, 16
FIRST_ROUNDS = 8
PROMPT_TITLES = ("strategy", "prompts", "tokens of each", "to first token ms", "transformers ms", "times as fast")
DELAY_TITLES = ("strategy", "decoding", "tokens of the late prompt", "usual round ms", "longest beside it ms", "times")
RATE_TITLES = ("strategy", "requests", "batch", "tokens/s, whole run", "tokens/s, rounds", "share")


@dataclass(frozen=True)
class PromptTime:
    """seconds: until the last of the prompts, sent at once, had its first token. peer_s: transformers' forward over
    them, to logits of each one's last token (None: not measured).
    """

    strategy: str
    prompts: int
    length: int
    seconds: float
    peer_s: float | None = None


@dataclass(frozen=True)
class Delay:
    """Rounds of requests that decode: as they are, and the longest while a prompt of `length` tokens is computed; from
    one outcome to the next.
    """

    strategy: str
    decoding: int
    length: int
    usual_s: float
    longest_s: float


@dataclass(frozen=True)
class WholeRun:
    """Tokens per second of a run, from its first request to its last token, and of its rounds alone."""

    strategy: str
    requests: int
    batch: int
    whole: float
    rounds: float


@dataclass(frozen=True)
class PromptMeasurement:
    """All of it."""

    prompts: list[PromptTime]
    delays: list[Delay]
    runs: list[WholeRun]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def shapes(lengths: Sequence[int] = LENGTHS) -> list[tuple[int, int]]:
    """How many prompts, and of how many tokens each: those that are measured."""
    return [*((1, length) for length in lengths), TOGETHER]


def measure_prompts(
    target: LoadedModel,
    draft: LoadedModel | None,
    *,
    k: int,
    lengths: Sequence[int] = LENGTHS,
    requests: int = REQUESTS,
    peers: Mapping[tuple[int, int], float] = MappingProxyType({}),
    on_line: OnLine = lambda line: None,
    **engine: Any,
) -> PromptMeasurement:
    """Prompts are of random tokens, so that nothing is reused; lengths beyond the context are left out. peers:
    transformers' seconds, by prompts and length.
    """
    longest = target.config.max_positions
    draw = random.Random(0)
    fitting = [length for length in lengths if length + 64 < longest]
    strategies: list[tuple[str, dict[str, Any]]] = [("autoregressive", {})]
    if draft is not None:
        strategies.append(("sync_chain", {"k": k}))
    prompts, delays, runs = [], [], []
    options = {
        "progress": False, "prefix_reuse": False, "max_batch": BATCH,
        "max_model_len": min(longest, max((*fitting, LATE)) + 512), **engine,
    }  # fmt: skip
    for strategy, fields in strategies:
        with LLM(target, None if strategy == "autoregressive" else draft, strategy, **options, **fields) as llm:
            for count, length in shapes(fitting):
                seconds = _first_tokens_s(llm, draw, count, length)
                prompts.append(PromptTime(strategy, count, length, seconds, peers.get((count, length))))
                on_line(f"{strategy}, {count} prompts of {length}: {seconds * 1e3:.1f} ms")
            runs.append(_whole_run(llm, strategy, requests))
            on_line(f"{strategy}: {runs[-1].whole:,.0f} of {runs[-1].rounds:,.0f} tokens/s")
            late = min(LATE, llm.memory_plan.max_model_len // 2)
            delays.append(_delay(llm, draw, strategy, late))
            on_line(f"{strategy}, late prompt: {delays[-1].usual_s * 1e3:.2f}, {delays[-1].longest_s * 1e3:.2f} ms")
    return PromptMeasurement(prompts, delays, runs)


def _ids(llm: LLM, draw: random.Random, length: int) -> list[int]:
    """Of a small vocabulary, which an inflated model has too."""
    return [draw.randrange(3, min(1000, llm.target.decoder.num_tokens)) for _ in range(length)]


def _first_tokens_s(llm: LLM, draw: random.Random, count: int, length: int) -> float:
    params, times = SamplingParams(max_tokens=1, ignore_eos=True), []
    for _ in range(UNTIMED + REPEATS):
        requests = llm.run([_ids(llm, draw, length) for _ in range(count)], params).trace.requests
        first = [request.first_token_s for request in requests if request.first_token_s is not None]
        times.append(max(first) - min(request.arrival_s for request in requests))
    return statistics.median(times[UNTIMED:])


def _whole_run(llm: LLM, strategy: str, requests: int) -> WholeRun:
    """The second of two runs of the canned prompts."""
    prompts = list(itertools.islice(itertools.cycle(demo.canned_prompts()), requests))
    params = SamplingParams(max_tokens=OUTPUT, ignore_eos=True)
    llm.run(prompts, params)
    result = llm.run(prompts, params)
    done = result.trace.requests
    whole_s = max(request.end_s or 0.0 for request in done) - min(request.arrival_s for request in done)
    tokens = sum(len(request.token_ids) for request in done)
    return WholeRun(strategy, requests, llm.config.max_batch, tokens / whole_s, result.metrics.tokens_per_second or 0.0)


def _delay(llm: LLM, draw: random.Random, strategy: str, length: int) -> Delay:
    """Requests that decode, others that end soon and make room, and a long prompt that takes it."""
    places = llm.config.max_batch
    few = SamplingParams(max_tokens=24, ignore_eos=True)
    long = SamplingParams(max_tokens=8 * (24 + 40), ignore_eos=True)
    short = [_ids(llm, draw, 24) for _ in range(places)]
    params = [long] * DECODING + [few] * (places - DECODING)
    found = []
    for _ in range(2):  # the first captures what the second replays
        result = llm.run([*short, _ids(llm, draw, length)], [*params, few])
        found = _gaps(result.trace, late=places)
    usual, beside = found
    return Delay(strategy, DECODING, length, statistics.median(usual), max(beside))


def _gaps(trace: Trace, late: int) -> list[list[float]]:
    """Seconds from one outcome to the next of rounds of those who decode: while nothing else happens, and while the
    prompt of the request number `late` is computed.
    """
    ids = sorted(request.request_id for request in trace.requests)
    came = next(request for request in trace.requests if request.request_id == ids[late])
    began_s, first_s = came.admitted_s or 0.0, came.first_token_s or 0.0
    usual, beside = [], []
    for before, after in itertools.pairwise(trace.rounds[FIRST_ROUNDS:]):
        gap = after.end_s - before.end_s
        if before.end_s >= began_s and after.end_s <= first_s:
            beside.append(gap)
        elif len(after.sequences) == DECODING:
            usual.append(gap)
    return [usual, beside]


def markdown(measurement: PromptMeasurement) -> str:
    """The sections of a report."""
    parts = [
        "## Prompts to their first token\n\n"
        "Medians; until the last of the prompts has its first token, the round that makes it included. transformers: "
        "one forward over the same prompts, on the same weights, to logits of the last token.\n\n"
        + Table(PROMPT_TITLES, [_prompt_cells(one) for one in measurement.prompts]).to_markdown(),
        "## Whole runs\n\n" + Table(RATE_TITLES, [_run_cells(one) for one in measurement.runs]).to_markdown(),
        "## A long prompt beside requests that decode\n\n"
        + Table(DELAY_TITLES, [_delay_cells(one) for one in measurement.delays]).to_markdown(),
    ]
    return "\n\n".join(parts)


def _prompt_cells(one: PromptTime) -> Cells:
    peer = ["-", "-"] if one.peer_s is None else [f"{one.peer_s * 1e3:.1f}", f"{one.peer_s / one.seconds:.2f}"]
    return [one.strategy, str(one.prompts), f"{one.length:,}", f"{one.seconds * 1e3:.1f}", *peer]


def _run_cells(one: WholeRun) -> Cells:
    return [
        one.strategy, str(one.requests), str(one.batch), f"{one.whole:,.0f}", f"{one.rounds:,.0f}",
        f"{one.whole / one.rounds:.1%}",
    ]  # fmt: skip


def _delay_cells(one: Delay) -> Cells:
    return [
        one.strategy, str(one.decoding), f"{one.length:,}", f"{one.usual_s * 1e3:.2f}", f"{one.longest_s * 1e3:.2f}",
        f"{one.longest_s / one.usual_s:.2f}",
    ]  # fmt: skip
