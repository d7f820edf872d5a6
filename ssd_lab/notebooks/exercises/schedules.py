"""Notebook 5."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ssd_lab.notebooks.judging import Code, Exercise, Number

_ACCEPTANCE, _K = 0.8, 4
_MISS_OF_ONE, _EXPONENT = 0.4, 0.5

Allocation = Callable[[Sequence[float], float, int], Sequence[int]]


def _spends_well(allocate: Allocation) -> str | None:
    from ssd_lab.decoding.fan_out import HitLaw, weighted_hit_rate
    from ssd_lab.decoding.fan_out import allocate as best

    generator = random.Random(5)
    for _ in range(20):
        weights = [generator.random() for _ in range(generator.randint(2, 6))]
        budget, exponent = generator.randint(1, 24), generator.uniform(0.3, 1.5)
        law = HitLaw(exponent, 0.5)
        rates = [[law.hit_rate(f) for f in range(budget + 1)]] * len(weights)
        got = list(allocate(list(weights), exponent, budget))
        if len(got) != len(weights) or sum(got) != budget or min(got) < 0:
            return f"{len(weights)} numbers from 0 up with sum {budget} are wanted, and it gave {got}"
        wanted = weighted_hit_rate(best(weights, rates, budget), weights, rates)
        if weighted_hit_rate(got, weights, rates) < wanted - 1e-9:
            shown = [round(weight, 2) for weight in weights]
            return f"for weights {shown}, r = {exponent:.2f} and budget {budget} there is a better one than {got}"
    return None


EXERCISES: tuple[Exercise, ...] = (
    Number(
        lambda: _ACCEPTANCE**_K,
        "no token after the last one has to be rejected",
        slips={
            "nothing is rejected at a = k: no factor 1 - alpha": lambda: _ACCEPTANCE**_K * (1 - _ACCEPTANCE),
            "k tokens, not k + 1": lambda: _ACCEPTANCE ** (_K + 1),
        },
    ),
    Number(
        lambda: 0.64 ** (1 / (1 + 1)),
        "the (1 + r)-th root of the acceptance rate",
        slips={"that is the ratio of the weights; the fan-out falls more slowly": lambda: 0.64},
    ),
    Number(
        lambda: _MISS_OF_ONE * 4**-_EXPONENT,
        "four times the branches, half the misses",
        slips={
            "that is the share of hits": lambda: 1 - _MISS_OF_ONE * 4**-_EXPONENT,
            "that would be r = 1": lambda: _MISS_OF_ONE / 4,
        },
    ),
    Code(_spends_well, "no allocation of twenty random cases is better"),
)
