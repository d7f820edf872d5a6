"""Strategies that draft from the text alone, and cascades that begin with one, replayed on texts that are there
already: no model runs.

A certain guess is accepted with the target's probability of it, which is how often a sampled text holds it: where the
text goes on as guessed the guess counts as accepted, exact at temperature 0 and right on average above.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ssd_lab.config import SamplingParams
from ssd_lab.simulate import RoundModel
from ssd_lab.strategies import Context, Draft, SequenceStrategy
from ssd_lab.trace import RequestRecord, RoundRecord, SequenceRound, Trace


@dataclass(frozen=True)
class LookupReplay:
    """trace: as if it had been recorded. call_s: median seconds of the strategy's own work for one sequence."""

    trace: Trace
    call_s: float


def replay_lookup(
    strategy: SequenceStrategy, requests: Iterable[RequestRecord], batch: int, otherwise: Otherwise | None = None
) -> LookupReplay:
    """Draft along each request's text, `batch` of them together, one after another in each slot. otherwise: what drafts
    where the strategy found too little.
    """
    calls_s: list[float] = []
    walks = [_walk(strategy, request, otherwise, calls_s) for request in requests]
    slots: list[list[SequenceRound]] = [[] for _ in range(batch)]
    for walk in sorted(walks, key=len, reverse=True):
        min(slots, key=len).extend(walk)
    shortest = min((len(slot) for slot in slots if slot), default=0)  # until then every slot that is used is taken
    filled = [slot for slot in slots if slot]
    rounds = [RoundRecord(i, i, i + 1, [slot[i] for slot in filled]) for i in range(shortest)]
    trace = Trace({"strategy": {"name": strategy.strategy_name}}, rounds=rounds)
    return LookupReplay(trace, statistics.median(calls_s or [0.0]))


@dataclass
class Otherwise:
    """A draft model's chain of k tokens where fewer than `least` were found; how many are kept is drawn."""

    least: int
    k: int
    model: RoundModel
    generator: random.Random = field(default_factory=lambda: random.Random(0))

    def accepted(self) -> int:
        """Of one chain."""
        return self.model.draw(self.generator, self.k)[0]


def _walk(
    strategy: SequenceStrategy, request: RequestRecord, otherwise: Otherwise | None, calls_s: list[float]
) -> list[SequenceRound]:
    text, prompt = [*request.prompt_ids, *request.token_ids], len(request.prompt_ids)
    memory: dict[str, object] = {}
    rounds, place = [], prompt
    while place < len(text):
        context = Context(request.request_id, tuple(text[:place]), prompt, SamplingParams(), memory)
        start_s = time.perf_counter()
        returned = strategy.draft(context)
        calls_s.append(time.perf_counter() - start_s)
        tokens = list(returned.tokens if isinstance(returned, Draft) else returned)
        accepted, origin = _agreeing(tokens, text[place:]), "custom" if tokens else "none"
        if otherwise is not None and len(tokens) < otherwise.least:
            accepted, origin = otherwise.accepted(), "draft"
            tokens = [text[-1]] * otherwise.k  # which ones costs no time
        emitted = min(accepted + 1, len(text) - place)
        rounds.append(
            SequenceRound(
                *(request.request_id, place, tokens, [1.0] * len(tokens), [1.0] * len(tokens)),
                *(accepted, text[min(place + accepted, len(text) - 1)], 1.0, emitted),
                origin=origin,
            )
        )
        place += emitted
    return rounds


def _agreeing(tokens: Sequence[int], text: Sequence[int]) -> int:
    count = 0
    for guess, real in zip(tokens, text, strict=False):
        if guess != real:
            break
        count += 1
    return count
