"""Tests of decisions against their laws, path by path.

Drawn tokens become numbers that are uniform if the law held (`F(tokens before it) + V * p(token)`, in three orders);
tosses are counted against their probabilities; and neither may have anything to do with the number that drew the draft
token. Every p-value is exact or an upper bound, down to the small ones that a
correction for thousands of tests needs.
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
from ssd_lab.check.statistics import chi_square_uniform, kolmogorov_uniform

MIN_DRAWS = 100  # fewer are listed and not tested
_PER_BIN = 25  # expected draws in a cell, so that the chi-square distribution holds far into its tail
_NOTHING = -1.0
_SURE = 1e-6  # a probability this near 0 or 1 is that, up to the engine's rounding
_SLIPS = 1e-4  # share of decisions that rounding may turn: at the edge of a nucleus, or between equal distributions


@dataclass(frozen=True)
class PathTests:
    """One kind of decision on one path. filtered: of requests with top-k, top-p or min-p. kind: `drawn` or `tossed`.

    numbers: what is tested, row by row; kept of a path with too few draws, to be tested with those of other cells.
    """

    path: str
    event: str
    filtered: bool
    kind: str
    draws: int
    impossible: int
    p_values: dict[str, float] = field(default_factory=dict)
    numbers: list[list[float]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))


class Evidence:
    """Grows with every wave of rounds; `tests` says what it amounts to."""

    def __init__(self, vocab_size: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._shuffled = self._random.permutation(vocab_size).astype(float)
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
    p_values, impossible = _test_drawn(numbers) if kind == "drawn" else _test_tossed(numbers)
    if len(numbers) >= MIN_DRAWS:
        return PathTests(path, event, filtered, kind, len(numbers), impossible, p_values)
    return PathTests(path, event, filtered, kind, len(numbers), impossible, {}, numbers.round(7).tolist())


def pooled(parts: Sequence[PathTests]) -> PathTests:
    """Paths of one kind that had too few draws each, tested together."""
    first = parts[0]
    numbers = np.concatenate([np.array(part.numbers) for part in parts])
    return tested(first.path, first.event, first.filtered, first.kind, numbers)


def _test_drawn(numbers: Floats) -> tuple[dict[str, float], int]:
    likelihood, contrast, shuffle, own, apart = numbers.T
    impossible = int((own <= 0).sum())
    bins = max(2, min(32, len(own) // _PER_BIN))
    p_values = {
        "likelihood": kolmogorov_uniform(likelihood).p_value,
        "contrast": kolmogorov_uniform(contrast).p_value,
        "tokens": chi_square_uniform(shuffle, bins).p_value,
        "impossible": _slips(impossible, len(own)),
    }
    return p_values | _independence(apart), impossible


def _test_tossed(numbers: Floats) -> tuple[dict[str, float], int]:
    probs, kept, apart = numbers.T
    impossible = int(((probs > 1 - _SURE) & (kept == 0)).sum() + ((probs < _SURE) & (kept == 1)).sum())
    p_values = {"impossible": _slips(impossible, len(probs))}
    rare = (probs >= _SURE) & (probs < 0.5)
    common = (probs >= 0.5) & (probs <= 1 - _SURE)
    for name, chosen in (("seldom kept", rare), ("often kept", common)):
        if chosen.any():
            p_values[name] = tossed_p_value(probs[chosen], int(kept[chosen].sum()))
    return p_values | _independence(apart), impossible


def _apart(now: Floats, before: Floats) -> Floats:
    """Their difference around the circle: uniform whatever `before` is, if `now` is uniform and owes it nothing."""
    return np.where(np.isnan(before), _NOTHING, (now - np.nan_to_num(before)) % 1.0)


def _independence(apart: Floats) -> dict[str, float]:
    told = apart[apart != _NOTHING]
    return {"independence": kolmogorov_uniform(told).p_value} if len(told) >= MIN_DRAWS else {}


def _slips(count: int, draws: int) -> float:
    """Upper bound of the chance of so many slips of rounding."""
    return min(1.0, _chernoff(np.full(draws, _SLIPS), count)) if count > _SLIPS * draws else 1.0


def tossed_p_value(probs: Floats, count: int) -> float:
    """Upper bound (Chernoff, two-sided) of the chance that `count` of independent tosses with these probabilities come
    up or anything further from their expectation.
    """
    return min(1.0, 2 * _chernoff(probs, count))


def _chernoff(probs: Floats, count: int) -> float:
    """min over t of E exp(t (sum - count)), on the side of the expectation where `count` is."""
    if count == len(probs):
        return math.exp(float(np.log(probs).sum()))
    if count == 0:
        return math.exp(float(np.log1p(-probs).sum()))
    low, high = -50.0, 50.0
    for _ in range(60):  # the tilted expectation grows with t
        middle = (low + high) / 2
        tilted = probs * math.exp(middle)
        if (tilted / (1 - probs + tilted)).sum() < count:
            low = middle
        else:
            high = middle
    exponent = np.log1p(probs * math.expm1(low)).sum() - low * count
    return math.exp(min(0.0, float(exponent)))
