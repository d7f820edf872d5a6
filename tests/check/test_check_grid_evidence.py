"""Laws of decisions, and p-values that mean what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ssd_lab.check.cells import Cell, CellResult
from ssd_lab.check.configurations import Configuration
from ssd_lab.check.correction import ALL, corrected_tests, paths_without_tests
from ssd_lab.check.decisions import BONUS, EMITTED, KEPT, RECOVERY, SIBLING, SIBLING_KEPT, Drawn, decisions
from ssd_lab.check.evidence import Tally, added_up, decision_tests
from ssd_lab.check.path_tests import MIN_DRAWS, PathTests
from ssd_lab.check.statistics import tossed_p_value
from ssd_lab.check.steps import Offer, Step

TARGET, DRAFT = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.2, 0.6, 0.1, 0.1])


def one_step(offered: list[int], kept: int, emitted: int, *, certain: bool = False) -> Step:
    return Step(emitted, TARGET, "tree", offer=Offer(offered, kept, None if certain else DRAFT))


def laws(step: Step) -> dict[str, np.ndarray | float]:
    """The law of each decision that was made."""
    made = decisions(step, np.random.default_rng(0))
    return {one.event: one.probs if isinstance(one, Drawn) else one.chance for one in made}


def outcomes(steps: list[Step], key: str = "a cell", vocab: int = 8, seed: int = 1) -> list[PathTests]:
    tally = Tally(vocab, seed, key)
    tally.add(steps)
    return tally.tests(decision_tests)


def of_emitted(steps: list[Step], key: str = "a cell", vocab: int = 8, seed: int = 1) -> PathTests:
    return next(tests for tests in outcomes(steps, key, vocab, seed) if tests.event == EMITTED)


def test_two_siblings_by_hand():
    found = laws(one_step([1, 2], kept=-1, emitted=0))
    assert found[KEPT] == pytest.approx(0.3 / 0.6)
    assert found[SIBLING] == pytest.approx([0.5, 0, 0.25, 0.25])  # the draft's without token 1
    # after the rejection of 1: max(p - q, 0) = .3, 0, .1, 0, so .75 and .25; the draft gives token 2 .25
    assert found[SIBLING_KEPT] == pytest.approx(1.0)
    assert found[RECOVERY] == pytest.approx([1.0, 0, 0, 0])  # .75 - .5, .25 - .25
    assert found[EMITTED] == pytest.approx(TARGET)


def test_certain_siblings_by_hand():
    found = laws(one_step([1, 2], kept=-1, emitted=0, certain=True))
    assert found[KEPT] == pytest.approx(0.3)
    assert found[SIBLING_KEPT] == pytest.approx(0.2 / 0.7)
    assert found[RECOVERY] == pytest.approx([1.0, 0, 0, 0])
    assert SIBLING not in found


def test_what_was_kept_ends_the_step():
    found = laws(one_step([1, 2], kept=0, emitted=1))
    assert SIBLING in found
    assert SIBLING_KEPT not in found
    assert RECOVERY not in found
    assert laws(one_step([], kept=-1, emitted=2))[BONUS] == pytest.approx(TARGET)


def test_where_nothing_is_told_of_offers_the_emitted_token_is_tested():
    assert set(laws(Step(1, TARGET, "draft"))) == {EMITTED}


def simulated(count: int, *, seed: int, width: int = 3, vocab: int = 8, strength: float = 1.0) -> list[Step]:
    """Recursive rejection sampling step by step; strength 1 is right, less accepts too seldom, more too often."""
    random = np.random.default_rng(seed)
    targets = random.dirichlet(np.full(vocab, 0.7), count)
    drafts = random.dirichlet(np.full(vocab, 0.7), count)
    steps = []
    for target, drafted in zip(targets, drafts, strict=True):
        p, q = target.copy(), drafted.copy()
        tokens = []
        for _ in range(width):
            token = int(random.choice(vocab, p=q / q.sum()))
            tokens.append((token, q / q.sum()))
            q[token] = 0
        kept = -1
        for place, (token, given) in enumerate(tokens):
            if kept < 0 and random.random() < strength * p[token] / given[token]:
                kept = place
            elif kept < 0:
                p = np.maximum(p - given, 0)
                p /= p.sum()
        emitted = int(random.choice(vocab, p=p)) if kept < 0 else tokens[kept][0]
        steps.append(Step(emitted, target, "tree", offer=Offer([token for token, _ in tokens], kept, drafted)))
    return steps


def smallest(steps: list[Step]) -> float:
    return min(p for tests in outcomes(steps) for p in tests.p_values.values())


def test_right_rejection_sampling_passes_and_a_tenth_too_little_does_not():
    assert smallest(simulated(4000, seed=2)) > 1e-3
    assert smallest(simulated(4000, seed=2, strength=0.9)) < 1e-6


def test_p_values_are_not_too_small_when_nothing_is_wrong():
    cells = [outcomes(simulated(300, seed=seed), f"cell {seed}") for seed in range(30)]
    p_values = [p for found in cells for tests in found for p in tests.p_values.values()]
    for level in (0.1, 0.01, 0.001):
        share = np.mean(np.array(p_values) <= level)
        assert share <= level + 3 * math.sqrt(level / len(p_values))


@pytest.mark.parametrize(
    ("chance", "count", "n"),
    [(0.3, 50, 100), (0.02, 9, 100), (0.5, 20, 100), (0.9, 100, 100), (0.1, 0, 100), (0.3, 31, 100), (0.5, 50, 100)],
)
def test_tosses_have_the_exact_tails_of_the_binomial(chance: float, count: int, n: int):
    term = [math.comb(n, i) * chance**i * (1 - chance) ** (n - i) for i in range(n + 1)]
    tail = sum(term[count:]) if count > chance * n else sum(term[: count + 1])
    assert tossed_p_value(np.full(n, chance), count) == pytest.approx(min(1.0, 2 * tail), rel=0.03)


def test_tosses_of_unequal_chances_have_the_tails_of_their_convolution():
    random = np.random.default_rng(4)
    probs = random.random(60) ** 3
    exact = np.ones(1)
    for p in probs:
        exact = np.convolve(exact, [1 - p, p])
    for count in (22, 27, 33, 40):
        assert tossed_p_value(probs, count) == pytest.approx(2 * exact[count:].sum(), rel=0.03)


CELL = Cell("random models", Configuration("sync_tree", {}).subject, 1.0, 8)


def corrected(cells: list[list[PathTests]]) -> dict[str, float]:
    """The smallest corrected p-value of cells by themselves, and of all added up."""
    found: dict[str, float] = {}
    for one in corrected_tests([(CELL, CellResult("a cell", 0.0, paths=paths)) for paths in cells]):
        kind = "all" if one.cell == ALL else "single"
        found[kind] = min(one.adjusted, found.get(kind, 1.0))
    return found


def test_paths_with_too_few_draws_are_tested_together():
    cells = [outcomes(simulated(MIN_DRAWS - 20, seed=seed, width=1, strength=0.3), f"cell {seed}") for seed in range(3)]
    assert all(part.p_values == {} for found in cells for part in found)
    assert corrected(cells)["all"] < 0.01
    together = added_up([next(tests for tests in found if tests.event == EMITTED) for found in cells])
    assert together.draws == 3 * (MIN_DRAWS - 20)
    assert min(together.p_values.values()) < 0.01


def test_paths_with_too_few_draws_in_all_cells_are_named():
    cells = [(CELL, CellResult("a cell", 0.0, paths=outcomes(simulated(MIN_DRAWS - 20, seed=0, width=1))))]
    assert corrected_tests(cells) == []
    assert ("sync_tree", EMITTED, MIN_DRAWS - 20) in {
        (strategy, tests.event, tests.draws) for strategy, tests in paths_without_tests(cells)
    }


@pytest.mark.full
def test_an_error_too_small_for_any_cell_shows_in_all_of_them_together():
    def cells(strength: float) -> list[list[PathTests]]:
        return [
            outcomes(simulated(500, seed=100 + seed, width=1, strength=strength), f"cell {seed}") for seed in range(60)
        ]

    right, wrong = corrected(cells(1.0)), corrected(cells(1.08))
    assert min(right.values()) > 0.01
    assert wrong["single"] > 0.01
    assert wrong["all"] < 1e-3


def test_sums_over_cells_have_p_values_as_good_as_those_of_all_decisions_at_once():
    """Tosses are added up in bins of like probability."""
    steps = simulated(3000, seed=5, width=1, strength=0.97)
    kept = next(tests for tests in outcomes(steps) if tests.event == KEPT)
    parts = [
        next(tests for tests in outcomes(steps[at : at + 60], f"cell {at}") if tests.event == KEPT)
        for at in range(0, 3000, 60)
    ]
    summed = added_up(parts)
    for name in ("seldom kept", "often kept"):
        assert summed.p_values[name] == pytest.approx(kept.p_values[name], rel=0.05)


def test_cells_whose_laws_leave_hardly_a_choice_may_be_added_up():
    """Their numbers come from the spreading alone, which must not be the same in all cells."""
    sure = replace(one_step([], kept=-1, emitted=0), target=np.array([1 - 1e-5, 1e-5, 0, 0]))
    parts = [of_emitted([sure] * 400, f"cell {number}", vocab=4, seed=0) for number in range(40)]
    assert min(added_up(parts).p_values.values()) > 1e-3
    assert min(added_up([parts[0]] * 40).p_values.values()) < 1e-6


def test_tokens_that_cannot_come_are_counted():
    found = of_emitted([one_step([], kept=-1, emitted=3)] * 200, vocab=4)
    assert found.impossible == 200
    assert found.p_values["impossible"] < 1e-100
