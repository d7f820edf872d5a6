"""Tests of decisions against their laws, path by path.

Drawn tokens become numbers that are uniform if the law held (`F(tokens before it) + V * p(token)`, in three orders);
tosses are counted against their probabilities; and neither may have anything to do with the number that drew the draft
token. Where every decision is tested, p-values are accurate down to the small ones that a correction for thousands of
tests needs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ssd_lab.check.decisions import EMITTED, Drawn, Tossed, decisions
from ssd_lab.check.path_tests import MIN_DRAWS, PathTests
from ssd_lab.check.statistics import (
    Floats,
    bin_counts,
    bin_deviation,
    chi_square_of_counts,
    chi_square_uniform,
    kolmogorov_uniform,
    mean_zero,
    tail_probability,
    tossed_p_value,
)
from ssd_lab.check.steps import Step

MIN_TESTED = 500  # of a text's tokens, whose tests hold less far into the tails; fewer are listed and not tested
_BINS = 32
_TOSS_BINS = 10
_PER_BIN = 25  # expected draws in a cell, so that the chi-square distribution holds far into its tail
_SURE = 1e-6  # a probability this near 0 or 1 is that, up to the engine's rounding
_SLIPS = 1e-4  # share of decisions that rounding may turn: at the edge of a nucleus, or between equal distributions

Numbers = dict[str, Floats]  # what a decision becomes: by name, one number `[n]` for each time


TestsOfPath = Callable[[str, str, bool, Numbers], PathTests]


class Tally:
    """The decisions of one cell, by path. It grows with every request; `tests` says what it amounts to.

    seed: of the order of tokens, which is the same in all cells that are added up. key: of the numbers that spread a
    token over its share, which must not be: where a law leaves hardly a choice, nothing else is random.
    """

    def __init__(self, vocab_size: int, seed: int, key: str) -> None:
        self._random = np.random.default_rng([seed, *key.encode()])
        shuffled = np.random.default_rng(seed).permutation(vocab_size).astype(float)
        self._shuffled = np.append(shuffled, vocab_size)  # the last is that of OTHERS
        self._parts: dict[tuple[str, str, bool], list[Numbers]] = defaultdict(list)
        self.tokens_by_path: dict[str, int] = defaultdict(int)

    @property
    def num_tokens(self) -> int:
        """Emitted tokens of all paths."""
        return sum(self.tokens_by_path.values())

    def add(self, steps: Sequence[Step]) -> None:
        """Sort the decisions of these steps by path."""
        drawn: dict[tuple[str, str, bool], list[Drawn]] = defaultdict(list)
        tossed: dict[tuple[str, str, bool], list[Tossed]] = defaultdict(list)
        for step in steps:
            self.tokens_by_path[step.path] += 1
            for one in decisions(step, self._random):
                key = (step.path, one.event, step.filtered)
                if isinstance(one, Drawn):
                    drawn[key].append(one)
                else:
                    tossed[key].append(one)
        for key, draws in drawn.items():
            self._parts[key].append(self._placed(draws))
        for key, tosses in tossed.items():
            self._parts[key].append(self._told(tosses))

    def tests(self, test: TestsOfPath) -> list[PathTests]:
        """All paths and decisions."""
        return [
            test(*key, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
            for key, parts in sorted(self._parts.items())
        ]

    def _placed(self, drawn: list[Drawn]) -> Numbers:
        """The uniform number by likelihood, by contrast and by a fixed shuffle; the token's own probability (0: it
        could not have come); and the number that drew it less the one before. Of emitted tokens also their surprise:
        minus the logarithm of the probability, less what that should be on average; and how much that should vary.
        """
        tokens, rows = np.array([one.token for one in drawn]), np.arange(len(drawn))
        probs, contrast = np.stack([one.probs for one in drawn]), np.stack([one.contrast for one in drawn])
        own = probs[rows, tokens]
        ids = [one.ids for one in drawn if one.ids is not None]
        shuffled = self._shuffled[np.stack(ids)] if ids else np.broadcast_to(self._shuffled[:-1], probs.shape)
        spread = self._random.random(len(own)) * own
        numbers = {"own": own, "most": probs.max(-1)}
        for name, order in {"likelihood": -probs, "contrast": -contrast, "tokens": shuffled}.items():
            chosen = order[rows, tokens][:, None]
            ties = (order == chosen) & (shuffled < shuffled[rows, tokens][:, None])
            numbers[name] = (probs * ((order < chosen) | ties)).sum(-1) + spread
        by_id = np.cumsum(probs, -1)[rows, tokens] - own + self._random.random(len(own)) * own
        numbers["apart"] = (by_id - [one.before for one in drawn]) % 1.0
        if drawn[0].event == EMITTED:
            surprises = -np.log(np.where(probs > 0, probs, 1.0))
            mean = (probs * surprises).sum(-1)
            numbers["surprise"] = surprises[rows, tokens] - mean
            numbers["surprise variance"] = (probs * (surprises - mean[:, None]) ** 2).sum(-1)
        return numbers

    def _told(self, tossed: list[Tossed]) -> Numbers:
        """The probability of yes, what came, and the coin (below the probability for yes) less the number before."""
        chance, kept = np.array([one.chance for one in tossed]), np.array([one.kept for one in tossed])
        spread = self._random.random(len(chance))
        coin = np.where(kept, spread * chance, chance + spread * (1 - chance))
        return {"chance": chance, "kept": kept.astype(float), "apart": (coin - [one.before for one in tossed]) % 1.0}


def text_tests(path: str, event: str, filtered: bool, numbers: Numbers) -> PathTests:
    """Test emitted tokens of any vocabulary and number format, whatever rounding turns at edges; what the trace tells
    of the draft's part is tested as in `decision_tests`.
    """
    if event != EMITTED:
        return replace(decision_tests(path, event, filtered, numbers), summary={})  # its cells are not alike
    likelihood, count = numbers["likelihood"], len(numbers["own"])
    impossible = int((numbers["own"] <= 0).sum())
    if count < MIN_TESTED:
        return PathTests(path, event, filtered, count, impossible)
    p_values = {
        "chi-square by likelihood": chi_square_uniform(likelihood).p_value,
        "Kolmogorov by likelihood": kolmogorov_uniform(likelihood).p_value,
        "Kolmogorov by contrast": kolmogorov_uniform(numbers["contrast"]).p_value,
        "chi-square by shuffle": chi_square_uniform(numbers["tokens"]).p_value,
        "mean surprise": mean_zero(numbers["surprise"], numbers["surprise variance"]).p_value,
    }
    return PathTests(path, event, filtered, count, impossible, p_values, bin_deviation(likelihood), count)


def decision_tests(path: str, event: str, filtered: bool, numbers: Numbers) -> PathTests:
    """Test draws or tosses, each number by the test that sees what may be wrong with it."""
    uniforms, tosses, impossible = _taken_apart(numbers)
    count = len(numbers["apart"])
    summary = {name: bin_counts(own, _BINS).tolist() for name, own in uniforms.items()}
    summary |= {name: _toss_summary(chance, kept) for name, (chance, kept) in tosses.items()}
    p_values = {}
    if count >= MIN_DRAWS:
        p_values = {name: _uniformity(name, own) for name, own in uniforms.items() if len(own) >= MIN_DRAWS}
        p_values |= {name: tossed_p_value(chance, int(kept.sum())) for name, (chance, kept) in tosses.items()}
        p_values["impossible"] = _slips(impossible, count)
    deviation = bin_deviation(uniforms["likelihood"]) if "likelihood" in p_values else None
    choices, spread = _extent(numbers)
    return PathTests(path, event, filtered, count, impossible, p_values, deviation, choices, spread, summary)


def added_up(parts: Sequence[PathTests]) -> PathTests:
    """Paths of one kind in several cells, tested by the sum of what they summarise: errors that are too small for any
    of them show here, and so do those of paths with too few draws in each. Without p-values if they are too few still.
    """
    first = parts[0]
    draws, impossible = sum(part.draws for part in parts), sum(part.impossible for part in parts)
    sums: dict[str, Floats] = {}
    for part in parts:
        for name, own in part.summary.items():
            sums[name] = sums.get(name, np.zeros(len(own))) + np.array(own)
    p_values = {}
    if draws >= MIN_DRAWS:
        p_values["impossible"] = _slips(impossible, draws)
        for name, values in sums.items():
            if len(values) != _BINS:
                numbers, chances = np.split(values[:-1], 2)
                there = numbers > 0
                mean = np.repeat(chances[there] / numbers[there], numbers[there].astype(int))
                p_values[name] = tossed_p_value(mean, int(values[-1]))
            elif values.sum() >= MIN_DRAWS:
                while values.mean() < _PER_BIN:
                    values = values.reshape(-1, 2).sum(1)
                p_values[name] = chi_square_of_counts(values).p_value
    return PathTests(first.path, first.event, first.filtered, draws, impossible, p_values)


def _taken_apart(numbers: Numbers) -> tuple[Numbers, dict[str, tuple[Floats, Floats]], int]:
    """Numbers that should be uniform, tosses with their probabilities, and how much could not have come."""
    told = numbers["apart"][~np.isnan(numbers["apart"])]
    uniforms = {"independence": told} if len(told) else {}
    if "own" in numbers:
        choice = numbers["most"] < 1 - _SURE  # elsewhere the law leaves no choice, and the number tells nothing
        uniforms |= {name: numbers[name][choice] for name in ("likelihood", "contrast", "tokens")}
        return uniforms, {}, int((numbers["own"] <= 0).sum())
    chance, kept = numbers["chance"], numbers["kept"]
    impossible = int(((chance > 1 - _SURE) & (kept == 0)).sum() + ((chance < _SURE) & (kept == 1)).sum())
    rare = (chance >= _SURE) & (chance < 0.5)
    common = (chance >= 0.5) & (chance <= 1 - _SURE)
    strata = {"seldom kept": rare, "often kept": common}
    return uniforms, {name: (chance[own], kept[own]) for name, own in strata.items() if own.any()}, impossible


def _extent(numbers: Numbers) -> tuple[int, float | None]:
    """Draws that had a choice; of tosses also the standard deviation of the share that comes up (wider stratum)."""
    if "own" in numbers:
        return int((numbers["most"] < 1 - _SURE).sum()), None
    _, tosses, _ = _taken_apart(numbers)
    spreads = [math.sqrt(float((chance * (1 - chance)).sum())) / len(chance) for chance, _ in tosses.values()]
    return sum(len(chance) for chance, _ in tosses.values()), max(spreads, default=0.0)


def _toss_summary(chance: Floats, kept: Floats) -> list[float]:
    bins = (chance * 2 * _TOSS_BINS).astype(int) % _TOSS_BINS  # all of them lie below one half, or none
    numbers = np.bincount(bins, minlength=_TOSS_BINS)
    return [*numbers.tolist(), *np.bincount(bins, chance, _TOSS_BINS).tolist(), float(kept.sum())]


def _uniformity(name: str, numbers: Floats) -> float:
    if name == "tokens":  # in an order that has nothing to do with the distributions
        return chi_square_uniform(numbers, max(2, min(_BINS, len(numbers) // _PER_BIN))).p_value
    if name == "independence":  # differences around the circle: too many are near 0 if one number was used twice
        return mean_zero(np.cos(2 * math.pi * numbers), np.full(len(numbers), 0.5)).p_value
    return kolmogorov_uniform(numbers).p_value


def _slips(count: int, draws: int) -> float:
    """The chance of so many slips of rounding, or more."""
    return tail_probability(np.full(draws, _SLIPS), count) if count > _SLIPS * draws else 1.0
