"""Is the winner the best? Every candidate of a grid against it: measured here, or priced on a published machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from ssd_lab.errors import ConfigError
from ssd_lab.tune.candidates import Candidate, coarse_grid
from ssd_lab.tune.recorded_runs import Subject
from ssd_lab.tune.scoring import FINE_ROUNDS, Scorer
from ssd_lab.tune.tuning import GridCheck

PASSES = 5


def measured_grid(
    subject: Subject,
    winner: Candidate,
    candidates: Sequence[Candidate] | None = None,
    *,
    passes: int = PASSES,
    on_candidate: Callable[[str, float], None] = lambda label, ratio: None,
) -> GridCheck:
    """Run each candidate in turn with the winner on the same prompts; the ratio of a pair is free of what slows the
    machine down in between. Takes minutes.
    """
    ratios = {winner.label: 1.0}
    with subject.opened(winner) as reference:
        for candidate in coarse_grid() if candidates is None else candidates:
            if candidate.label in ratios:
                continue
            with subject.opened(candidate) as own:
                pairs = []
                for number in range(passes):
                    prompts = [subject.prompts[number % len(subject.prompts)]]
                    order = (reference, own) if number % 2 else (own, reference)
                    speeds = {llm: subject.run(llm, prompts).metrics.tokens_per_second or 0.0 for llm in order}
                    if speeds[reference]:
                        pairs.append(speeds[own] / speeds[reference])
            ratios[candidate.label] = statistics.median(pairs) if pairs else 0.0
            on_candidate(candidate.label, ratios[candidate.label])
    return _check(ratios, winner)


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
