"""Tests of decisions against their laws, path by path.

Drawn tokens become numbers that are uniform if the law held (`F(tokens before it) + V * p(token)`, in three orders);
tosses are counted against their probabilities; and neither may have anything to do with the number that drew the draft
token. Every p-value is accurate down to the small ones that a correction for
thousands of tests needs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssd_lab.check.grid.decisions import Drawn, Tossed, decisions, number_of
from ssd_lab.check.grid.steps import Floats, Steps
from ssd_lab.check.statistics import bin_counts, chi_square_survival, chi_square_uniform, kolmogorov_uniform, mean_zero

MIN_DRAWS = 100  # fewer are listed and not tested
_TOKENS = "tokens"  # the test in an order that has nothing to do with the distributions
_INDEPENDENCE = "independence"
_BINS = 32
_PER_BIN = 25  # expected draws in a cell, so that the chi-square distribution holds far into its tail
_NORMAL_VARIANCE = 400.0  # of a count, from which the normal distribution is close far into its tails
_NOTHING = -1.0
_SURE = 1e-6  # a probability this near 0 or 1 is that, up to the engine's rounding
_SLIPS = 1e-4  # share of decisions that rounding may turn: at the edge of a nucleus, or between equal distributions


@dataclass(frozen=True)
class PathTests:
    """One kind of decision on one path. filtered: of requests with top-k, top-p or min-p. kind: `drawn` or `tossed`.

    numbers: what is tested, row by row; kept of a path with too few draws, to be tested with those of other cells.
    summary: of the others what can be added up over cells: of each uniform number how many fell into each of equal
    bins, of tosses the expected count, its variance, and the count.
    """

    path: str
    event: str
    filtered: bool
    kind: str
    draws: int
    impossible: int
    p_values: dict[str, float] = field(default_factory=dict)
    numbers: list[list[float]] = field(default_factory=list)
    summary: dict[str, list[float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))


class Evidence:
    """Grows with every wave of rounds; `tests` says what it amounts to.

    seed: of the order of tokens, which is the same in all cells that are added up. key: of the numbers that spread a
    token over its share, which must not be: where a law leaves hardly a choice, nothing else is random.
    """

    def __init__(self, vocab_size: int, seed: int, key: str) -> None:
        self._random = np.random.default_rng([seed, *key.encode()])
        self._shuffled = np.random.default_rng(seed).permutation(vocab_size).astype(float)
        self._drawn: dict[tuple[str, str, bool], list[Floats]] = defaultdict(list)
        self._tossed: dict[tuple[str, str, bool], list[Floats]] = defaultdict(list)
        self.num_tokens = 0

    def add(self, steps: Steps) -> None:
        """Sort the decisions of these steps by path."""
        self.num_tokens += len(steps)
        drawn, tossed = decisions(steps, self._random)
        for event in drawn:
            self._sort(self._drawn, event, steps, self._placed(event))
        for toss in tossed:
            self._sort(self._tossed, toss, steps, self._tossed_numbers(toss))

    def tests(self) -> list[PathTests]:
        """All paths and decisions."""
        found = [tested(*key, "drawn", np.concatenate(parts)) for key, parts in self._drawn.items()]
        found += [tested(*key, "tossed", np.concatenate(parts)) for key, parts in self._tossed.items()]
        return sorted(found, key=lambda tests: (tests.path, tests.event, tests.filtered))

    def _sort(self, into: dict[Any, list[Floats]], event: Drawn | Tossed, steps: Steps, numbers: Floats) -> None:
        paths, filtered = steps.paths[event.rows], steps.filtered[event.rows]
        for path in np.unique(paths):
            for own in (False, True):
                chosen = (paths == path) & (filtered == own)
                if chosen.any():
                    into[str(path), event.event, own].append(numbers[chosen])

    def _placed(self, drawn: Drawn) -> Floats:
        """`[n, 5]`: the uniform number by likelihood, by contrast and by a fixed shuffle, the token's own probability,
        and the number that drew it less the one before (_NOTHING: there is none).
        """
        rows = np.arange(len(drawn.tokens))
        own = drawn.probs[rows, drawn.tokens]
        spread = self._random.random(len(own)) * own
        shuffled = np.broadcast_to(self._shuffled, drawn.probs.shape)
        columns = []
        for key in (-drawn.probs, -drawn.contrast, shuffled):
            chosen = key[rows, drawn.tokens][:, None]
            ties = (key == chosen) & (shuffled < shuffled[rows, drawn.tokens][:, None])
            columns.append((drawn.probs * ((key < chosen) | ties)).sum(-1) + spread)
        return np.stack([*columns, own, _apart(number_of(drawn.tokens, drawn.probs, self._random), drawn.before)], 1)

    def _tossed_numbers(self, tossed: Tossed) -> Floats:
        """`[n, 3]`: the probability of yes, what came, and the coin (below the probability for yes) less the number
        before.
        """
        spread = self._random.random(len(tossed.probs))
        coin = np.where(tossed.kept, spread * tossed.probs, tossed.probs + spread * (1 - tossed.probs))
        return np.stack([tossed.probs, tossed.kept, _apart(coin, tossed.before)], 1)


def tested(path: str, event: str, filtered: bool, kind: str, numbers: Floats) -> PathTests:
    """Test numbers as `Evidence` collects them: `[n, 5]` of drawn tokens, `[n, 3]` of tosses."""
    uniforms, tosses, impossible = _taken_apart(kind, numbers)
    count = len(numbers)
    if count < MIN_DRAWS:
        return PathTests(path, event, filtered, kind, count, impossible, numbers=numbers.round(7).tolist())
    p_values = {name: _uniformity(name, own) for name, own in uniforms.items()}
    p_values |= {name: tossed_p_value(probs, int(kept.sum())) for name, (probs, kept) in tosses.items()}
    p_values["impossible"] = _slips(impossible, count)
    summary = {name: bin_counts(own, _BINS).tolist() for name, own in uniforms.items()}
    for name, (probs, kept) in tosses.items():
        summary[name] = [float(probs.sum()), float((probs * (1 - probs)).sum()), float(kept.sum())]
    return PathTests(path, event, filtered, kind, count, impossible, p_values, summary=summary)


def pooled(parts: Sequence[PathTests]) -> PathTests:
    """Paths of one kind that had too few draws each, tested together."""
    first = parts[0]
    numbers = np.concatenate([np.array(part.numbers) for part in parts])
    return tested(first.path, first.event, first.filtered, first.kind, numbers)


def added_up(parts: Sequence[PathTests]) -> PathTests:
    """Tested paths of one kind, tested once more by the sum of what they summarise: small errors of all show here."""
    first = parts[0]
    draws, impossible = sum(part.draws for part in parts), sum(part.impossible for part in parts)
    sums: dict[str, Floats] = {}
    for part in parts:
        for name, own in part.summary.items():
            sums[name] = sums.get(name, np.zeros(len(own))) + np.array(own)
    p_values = {"impossible": _slips(impossible, draws)}
    for name, values in sums.items():
        if len(values) == _BINS:
            statistic = float(((values - values.mean()) ** 2).sum() / values.mean())
            p_values[name] = chi_square_survival(statistic, _BINS - 1)
        elif values[1] >= _NORMAL_VARIANCE:
            p_values[name] = min(1.0, 2 * _beyond(abs(values[2] - values[0]) / math.sqrt(values[1])))
    return PathTests(first.path, first.event, first.filtered, first.kind, draws, impossible, p_values)


def _taken_apart(kind: str, numbers: Floats) -> tuple[dict[str, Floats], dict[str, tuple[Floats, Floats]], int]:
    """Numbers that should be uniform, tosses with their probabilities, and how much could not have come."""
    apart = numbers[:, -1]
    told = apart[apart != _NOTHING]
    uniforms = {_INDEPENDENCE: told} if len(told) >= MIN_DRAWS else {}
    if kind == "drawn":
        likelihood, contrast, shuffle, own, _ = numbers.T
        uniforms |= {"likelihood": likelihood, "contrast": contrast, _TOKENS: shuffle}
        return uniforms, {}, int((own <= 0).sum())
    probs, kept, _ = numbers.T
    impossible = int(((probs > 1 - _SURE) & (kept == 0)).sum() + ((probs < _SURE) & (kept == 1)).sum())
    rare = (probs >= _SURE) & (probs < 0.5)
    common = (probs >= 0.5) & (probs <= 1 - _SURE)
    strata = {"seldom kept": rare, "often kept": common}
    return uniforms, {name: (probs[own], kept[own]) for name, own in strata.items() if own.any()}, impossible


def _uniformity(name: str, numbers: Floats) -> float:
    """Each by the test that sees what may be wrong with it."""
    if name == _TOKENS:
        return chi_square_uniform(numbers, max(2, min(_BINS, len(numbers) // _PER_BIN))).p_value
    if name == _INDEPENDENCE:  # differences around the circle: too many are near 0 if one number was used twice
        return mean_zero(np.cos(2 * math.pi * numbers), np.full(len(numbers), 0.5)).p_value
    return kolmogorov_uniform(numbers).p_value


def _apart(now: Floats, before: Floats) -> Floats:
    """Their difference around the circle: uniform whatever `before` is, if `now` is uniform and owes it nothing."""
    return np.where(np.isnan(before), _NOTHING, (now - np.nan_to_num(before)) % 1.0)


def _slips(count: int, draws: int) -> float:
    """The chance of so many slips of rounding, or more."""
    return tail_probability(np.full(draws, _SLIPS), count) if count > _SLIPS * draws else 1.0


def tossed_p_value(probs: Floats, count: int) -> float:
    """Two-sided: the chance that of independent tosses with these probabilities `count` come up, or a count as far out
    on its side, twice.
    """
    above = count > float(probs.sum())
    return min(1.0, 2 * (tail_probability(probs, count) if above else tail_probability(1 - probs, len(probs) - count)))


def tail_probability(probs: Floats, count: int) -> float:
    """P(at least `count` of independent tosses with these probabilities come up), for a count not below expectation.

    Lugannani and Rice's saddle point formula for lattices (1980; Daniels 1987, section 6), whose relative error stays
    small however far out the count is.
    """
    if count >= len(probs):
        return math.exp(float(np.log(probs).sum()))
    low, high = 0.0, 50.0
    for _ in range(60):  # the tilted expectation grows with the tilt
        tilt = (low + high) / 2
        tilted = probs * math.exp(tilt)
        tilted /= 1 - probs + tilted
        low, high = (tilt, high) if tilted.sum() < count else (low, tilt)
    spread = math.sqrt(float((tilted * (1 - tilted)).sum()))
    if tilt * spread < 0.05:  # at the expectation the formula is 0 / 0
        return _beyond((count - 0.5 - float(probs.sum())) / spread)
    exponent = tilt * count - float(np.log1p(probs * math.expm1(tilt)).sum())
    score = math.sqrt(2 * max(exponent, 0.0))
    density = math.exp(-exponent) / math.sqrt(2 * math.pi)
    return min(1.0, max(0.0, _beyond(score) + density * (1 / (-math.expm1(-tilt) * spread) - 1 / score)))


def _beyond(score: float) -> float:
    """P(a standard normal number > score)."""
    return math.erfc(score / math.sqrt(2)) / 2
