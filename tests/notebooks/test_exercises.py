"""Exercises: the right answer passes, likely slips get their own word, nonsense never raises."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest

import ssd_lab
from ssd_lab.errors import ConfigError
from ssd_lab.notebooks import check, solution
from ssd_lab.notebooks.exercises import EXERCISES

# worked out by hand, so that the code that works them out is tested, too
NUMBERS = {
    "00-1": 3,
    "01-1": 5, "02-1": 0.6, "02-2": 0.5, "02-3": 3.3616, "04-1": 21, "04-2": 11.2, "04-3": 13.54,
    "03-1": 20, "03-2": 0.96, "03-3": 2 / 3, "05-1": 0.4096, "05-2": 0.8, "05-3": 0.2, "06-1": 1 / 3, "06-2": 5 / 6,
    "07-1": 12288, "07-2": 1, "10-1": 161.1, "10-2": 253.5, "11-1": 1380, "11-2": 3.4,
    "08-1": 1, "08-2": 0.3, "09-1": 15, "09-2": 6, "09-3": 1.5, "09-4": 0.43,
}  # fmt: skip
WORDS = {
    "00-2": "time",
    "01-2": "tokens_per_second", "03-4": "certain", "04-4": "missed", "06-3": "nothing", "06-4": "no", "07-3": "own",
    "07-4": "recovery", "10-3": "no", "11-3": "batch",
}  # fmt: skip
SLIPS = {
    "00-1": (2, "of its own"), "00-2": ("both", "whatever"),
    "01-1": (4, "target adds"), "02-1": (0.4, "rejected"), "02-2": (0.2, "scaled"), "02-3": (2.3616, "own token"),
    "04-1": (18, "0 as well"), "04-2": (16, "beside"), "04-3": (11.2, "all four"), "08-1": (0, "own token"),
    "08-2": (1, "min(1, p/q)"), "09-1": (7.5, "two bytes"), "09-2": (7, "still"), "09-3": (2, "hides"),
    "09-4": (0.9, "one sequence"), "03-1": (7, "each node"), "03-2": (0.8, "siblings"), "03-3": (1, "changed"),
    "05-1": (0.08192, "nothing is rejected"), "05-2": (0.64, "more slowly"), "05-3": (0.1, "r = 1"),
    "06-1": (0.25, "sum to one"), "06-2": (1, "bent"), "07-1": (4096, "comes out"), "07-2": (2, "one before"),
    "10-1": (307.4, "six"), "10-2": (313.0, "longer"),
    "11-1": (1400, "no text"), "11-2": (2.4, "own token"), "11-3": ("blocks", "free"),
    "03-4": ("drawn", "follow q"), "07-3": ("target", "not read"),
}  # fmt: skip


def tokens_per_round(trace: Any) -> float:
    rows = [row for record in trace.rounds for row in record.sequences]
    return sum(row.num_accepted + 1 for row in rows) / len(rows)


def emit(p: list[float], q: list[float], token: int, u: float, v: float) -> int:
    if u < p[token] / q[token]:
        return token
    residual = [max(a - b, 0) for a, b in zip(p, q, strict=True)]
    target = v * sum(residual)
    for word, weight in enumerate(residual):
        target -= weight
        if target < 0:
            return word
    return len(p) - 1


def one_by_one(weights: list[float], exponent: float, budget: int) -> list[int]:
    counts = [0] * len(weights)
    for _ in range(budget):
        pairs = zip(weights, counts, strict=True)
        gains = [w * (0.5 if f == 0 else 0.5 * (f**-exponent - (f + 1) ** -exponent)) for w, f in pairs]
        counts[max(range(len(weights)), key=gains.__getitem__)] += 1
    return counts


class TwoTokens(ssd_lab.SequenceStrategy):
    """The last two tokens, then the last one."""

    strategy_name: ClassVar[str] = "two_tokens"
    k: int = 4

    @property
    def lookahead(self) -> int:
        return self.k

    def draft(self, context: ssd_lab.Context) -> list[int]:
        tokens = list(context.token_ids)
        for size in (2, 1):
            for start in range(len(tokens) - size - 1, -1, -1):
                if tokens[start : start + size] == tokens[-size:]:
                    return tokens[start + size : start + size + self.k]
        return []


def test_every_exercise_has_an_answer_here():
    assert set(EXERCISES) == {*NUMBERS, *WORDS, "01-3", "02-4", "05-4", "08-3"}


@pytest.mark.parametrize(("exercise", "answer"), [*NUMBERS.items(), *WORDS.items()])
def test_right_answers_are_right(exercise: str, answer: float | str):
    assert check(exercise, answer).right is True


@pytest.mark.parametrize(("exercise", "slip"), SLIPS.items())
def test_a_likely_slip_gets_its_own_word(exercise: str, slip: tuple[float, str]):
    verdict = check(exercise, slip[0])
    assert verdict.right is False
    assert slip[1] in verdict.message


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize("nonsense", [None, "", "seven", -3.5, float("nan"), [], object()])
def test_nonsense_is_answered_in_words(exercise: str, nonsense: object):
    verdict = check(exercise, nonsense)
    assert verdict.right is False
    assert verdict.message


@pytest.mark.parametrize("exercise", EXERCISES)
def test_without_an_answer_it_says_what_is_wanted(exercise: str):
    verdict = check(exercise)
    assert verdict.right is None
    assert "in place of the dots" in verdict.message


def test_the_solution_of_an_exercise_is_its_answer():
    for exercise in EXERCISES:
        answer = solution(exercise)
        assert answer is None or check(exercise, answer).right is True
    assert solution("01-1") == 5 and solution("01-3") is None


def test_an_unknown_exercise_is_told():
    with pytest.raises(ConfigError, match="01-1"):
        check("99-1", 3)


def test_code_answers():
    assert check("01-3", tokens_per_round).right is True
    assert "recovery token" in check("01-3", lambda trace: tokens_per_round(trace) - 1).message
    assert "ZeroDivisionError" in check("01-3", lambda trace: 1 / 0).message
    assert check("02-4", emit).right is True
    assert check("05-4", one_by_one).right is True
    assert "better one" in check("05-4", lambda weights, r, budget: [budget, *[0] * (len(weights) - 1)]).message
    assert "with sum" in check("05-4", lambda weights, r, budget: [1] * len(weights)).message


@pytest.mark.parametrize(
    "wrong",
    [
        lambda p, q, token, u, v: token,
        lambda p, q, token, u, v: token if u < p[token] / q[token] else random.Random(v).choices(range(3), p)[0],
        lambda p, q, token, u, v: max(range(3), key=p.__getitem__),
    ],
    ids=["always keeps", "redraws from the target", "greedy"],
)
def test_a_wrong_acceptance_rule_is_found(wrong: Any):
    verdict = check("02-4", wrong)
    assert verdict.right is False
    assert "0.5, 0.3, 0.2" in verdict.message


@pytest.mark.full
def test_a_strategy_of_the_readers(monkeypatch: pytest.MonkeyPatch):
    """The autoregressive text is made once."""
    run, plain = ssd_lab.run, []

    def run_once(prompts: list[str], strategy: Any, **given: Any) -> Any:
        if strategy == "autoregressive" and plain:
            return plain[0]
        made = run(prompts, strategy=strategy, **given)
        plain.extend([made] if strategy == "autoregressive" else [])
        return made

    monkeypatch.setattr(ssd_lab, "run", run_once)
    assert check("08-3", TwoTokens).right is True
    weak = type("Weak", (TwoTokens,), {"draft": lambda self, context: []})
    assert "tokens per round" in check("08-3", weak).message
    assert "ProposerError" not in check("08-3", type("Bad", (TwoTokens,), {"draft": lambda s, c: [-1]})).message


def test_a_verdict_shows_itself_safely():
    verdict = check("01-2", "<script>")
    assert "<script>" not in verdict._repr_html_()
    assert "not yet" in repr(verdict)
