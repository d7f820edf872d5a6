"""Laws of decisions, and p-values that mean what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ssd_lab.check.grid.cell import Cell, CellResult
from ssd_lab.check.grid.configurations import Configuration
from ssd_lab.check.grid.correction import ALL, corrected_tests
from ssd_lab.check.grid.decisions import BONUS, EMITTED, KEPT, RECOVERY, SIBLING, SIBLING_KEPT, decisions
from ssd_lab.check.grid.evidence import MIN_DRAWS, Evidence, added_up, pooled, tossed_p_value
from ssd_lab.check.grid.steps import Steps

TARGET, DRAFT = [0.5, 0.3, 0.2, 0.0], [0.2, 0.6, 0.1, 0.1]


def one_step(offered: list[int], kept: int, emitted: int, *, certain: bool = False) -> Steps:
    return Steps(
        offered=np.array([offered]), certain=np.array([certain]), target=np.array([TARGET]), drafted=np.array([DRAFT]),
        kept=np.array([kept]), emitted=np.array([emitted]), paths=np.array(["tree"]), filtered=np.array([False]),
    )  # fmt: skip


def laws(steps: Steps) -> dict[str, np.ndarray]:
    """The first row's law of each decision that was made."""
    drawn, tossed = decisions(steps, np.random.default_rng(0))
    return {event.event: event.probs[0] for event in [*drawn, *tossed] if len(event.rows)}


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
    assert SIBLING_KEPT not in found
    assert RECOVERY not in found
    assert laws(one_step([-1, -1], kept=-1, emitted=2))[BONUS] == pytest.approx(TARGET)


def simulated(count: int, *, seed: int, width: int = 3, vocab: int = 8, strength: float = 1.0) -> Steps:
    """Recursive rejection sampling step by step; strength 1 is right, less accepts too seldom, more too often."""
    random = np.random.default_rng(seed)
    target = random.dirichlet(np.full(vocab, 0.7), count)
    drafted = random.dirichlet(np.full(vocab, 0.7), count)
    offered, kept, emitted = np.full((count, width), -1), np.full(count, -1), np.zeros(count, int)
    for row in range(count):
        p, q = target[row].copy(), drafted[row].copy()
        tokens = []
        for _ in range(width):
            token = int(random.choice(vocab, p=q / q.sum()))
            tokens.append((token, q / q.sum()))
            q[token] = 0
        for place, (token, given) in enumerate(tokens):
            offered[row, place] = token
            if kept[row] < 0 and random.random() < strength * p[token] / given[token]:
                kept[row], emitted[row] = place, token
            elif kept[row] < 0:
                p = np.maximum(p - given, 0)
                p /= p.sum()
        if kept[row] < 0:
            emitted[row] = int(random.choice(vocab, p=p))
    paths = np.full(count, "tree")
    return Steps(offered, np.zeros(count, bool), target, drafted, kept, emitted, paths, np.zeros(count, bool))


def smallest(steps: Steps) -> float:
    evidence = Evidence(8, 1, "a cell")
    evidence.add(steps)
    return min(p for tests in evidence.tests() for p in tests.p_values.values())


def test_right_rejection_sampling_passes_and_a_tenth_too_little_does_not():
    assert smallest(simulated(4000, seed=2)) > 1e-3
    assert smallest(simulated(4000, seed=2, strength=0.9)) < 1e-6


def test_p_values_are_not_too_small_when_nothing_is_wrong():
    p_values = []
    for seed in range(60):
        evidence = Evidence(8, 1, f"cell {seed}")
        evidence.add(simulated(300, seed=seed))
        p_values += [p for tests in evidence.tests() for p in tests.p_values.values()]
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


def test_paths_with_too_few_draws_are_tested_together():
    parts = []
    for seed in range(3):
        evidence = Evidence(8, 1, f"cell {seed}")
        evidence.add(simulated(MIN_DRAWS - 20, seed=seed, strength=0.5))
        parts.append(next(tests for tests in evidence.tests() if tests.event == EMITTED))
    assert all(part.p_values == {} for part in parts)
    together = pooled(parts)
    assert together.draws == 3 * (MIN_DRAWS - 20)
    assert min(together.p_values.values()) < 0.01
    assert together.numbers == []


def test_an_error_too_small_for_any_cell_shows_in_all_of_them_together():
    cell = Cell("random models", Configuration("sync_tree", {}), 1.0, 8)

    def smallest_of(strength: float) -> dict[str, float]:
        cells = []
        for seed in range(60):
            evidence = Evidence(8, 1, f"cell {seed}")
            evidence.add(simulated(500, seed=100 + seed, width=1, strength=strength))
            cells.append((cell, CellResult(f"cell {seed}", 0.0, paths=evidence.tests())))
        found: dict[str, float] = {}
        for one in corrected_tests(cells):
            kind = "all" if one.cell == ALL else "single"
            found[kind] = min(one.adjusted, found.get(kind, 1.0))
        return found

    right, wrong = smallest_of(1.0), smallest_of(1.08)
    assert min(right.values()) > 0.01
    assert wrong["single"] > 0.01
    assert wrong["all"] < 1e-3


def test_cells_whose_laws_leave_hardly_a_choice_may_be_added_up():
    """Their numbers come from the spreading alone, which must not be the same in all cells."""
    step = one_step([-1], kept=-1, emitted=0)
    sure = replace(step, target=np.array([[1.0, 0, 0, 0]]))
    many = replace(sure, **{name: np.repeat(value, 400, 0) for name, value in vars(sure).items()})
    parts = []
    for number in range(40):
        evidence = Evidence(4, 0, f"cell {number}")
        evidence.add(many)
        parts.append(next(tests for tests in evidence.tests() if tests.event == EMITTED))
    assert min(added_up(parts).p_values.values()) > 1e-3
    assert min(added_up([parts[0]] * 40).p_values.values()) < 1e-6


def test_tokens_that_cannot_come_are_counted():
    steps = one_step([-1], kept=-1, emitted=3)
    many = replace(steps, **{name: np.repeat(value, 200, 0) for name, value in vars(steps).items()})
    evidence = Evidence(4, 0, "a cell")
    evidence.add(many)
    found = next(tests for tests in evidence.tests() if tests.event == EMITTED)
    assert found.impossible == 200
    assert found.p_values["impossible"] < 1e-100
