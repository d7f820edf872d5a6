"""Is the winner the best? Every candidate of a grid against it: measured here, or priced on a published machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM
from ssd_lab.tune.candidates import Candidate
from ssd_lab.tune.recorded_runs import Subject
from ssd_lab.tune.scoring import FINE_ROUNDS, Scorer
from ssd_lab.tune.tuning import GridCheck

PASSES = 5
AGAIN, AGAIN_PASSES = 4, 3  # how many of the best are run again, and how much longer


def measured_grid(
    subject: Subject,
    winner: Candidate,
    candidates: Sequence[Candidate],
    *,
    passes: int = PASSES,
) -> GridCheck:
    """Run each candidate in turn with the winner on the same prompts; the ratio of a pair is free of what slows the
    machine down in between. Takes minutes.
    """
    by_label = {one.label: one for one in candidates if one.label != winner.label}
    pairs: dict[str, list[float]] = {}
    with subject.opened(winner) as reference:
        for label, candidate in by_label.items():
            pairs[label] = _paired(subject, reference, candidate, range(passes))
        # the largest of many noisy ratios is mostly noise: the best are run again, and only those runs count for them
        for label in sorted(pairs, key=lambda one: -_median(pairs[one]))[:AGAIN]:
            pairs[label] = _paired(subject, reference, by_label[label], range(passes, passes + AGAIN_PASSES * passes))
    return _check({winner.label: 1.0, **{label: _median(own) for label, own in pairs.items()}}, winner)


def _paired(subject: Subject, reference: LLM, candidate: Candidate, passes: Sequence[int]) -> list[float]:
    """The candidate's speed over the reference's, one prompt a pass, in turns."""
    ratios = []
    with subject.opened(candidate) as own:
        for number in passes:
            prompts = [subject.prompts[number % len(subject.prompts)]]
            order = (reference, own) if number % 2 else (own, reference)
            speeds = {llm: subject.run(llm, prompts).metrics.tokens_per_second or 0.0 for llm in order}
            if speeds[reference]:
                ratios.append(speeds[own] / speeds[reference])
    return ratios


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def simulated_grid(judge: Scorer, winner: Candidate, candidates: Sequence[Candidate]) -> GridCheck:
    """Price every candidate with outcomes that the winner was not chosen by."""
    own = judge.score(winner, FINE_ROUNDS)
    if own is None:
        raise ConfigError(f"{winner.label} cannot be priced with these outcomes")
    ratios = {winner.label: 1.0}
    for candidate in candidates:
        scored = judge.score(candidate, FINE_ROUNDS)
        if scored is not None:
            ratios[candidate.label] = scored.predicted_tokens_per_second / own.predicted_tokens_per_second
    return _check(ratios, winner)


def _check(ratios: dict[str, float], winner: Candidate) -> GridCheck:
    best = max(ratios, key=lambda label: ratios[label])
    return GridCheck(share_of_best=ratios[winner.label] / ratios[best], best=best, ratios=ratios)
