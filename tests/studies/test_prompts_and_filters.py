"""Prompts repeat with their seed, stay away from test prompts; filters say why an answer goes."""

from __future__ import annotations

import random

import pytest

from studies.bundled_models import prompt_math
from studies.bundled_models.filters import contains_result, reject_reason, repeats
from studies.bundled_models.prompts import Prompt, own_prompts, without_overlap


def test_same_seed_same_prompts() -> None:
    assert own_prompts(300, seed=3) == own_prompts(300, seed=3)
    assert own_prompts(300, seed=3) != own_prompts(300, seed=4)


def test_prompts_are_different_and_filled() -> None:
    prompts = own_prompts(2_000, seed=0)
    assert len({p.text for p in prompts}) == 2_000
    assert len({p.kind for p in prompts}) > 10
    texts = [p.text for p in prompts if p.kind != "code"]
    assert not [text for text in texts if "{" in text or "}" in text]


def test_a_code_stub_comes_with_an_instruction_for_the_teacher() -> None:
    stub = Prompt("def f(x):\n    pass\n", "code")
    assert stub.asked != stub.text and stub.text in stub.asked
    assert Prompt("What is a list?", "code").asked == "What is a list?"


def test_every_exercise_has_a_number_as_its_result() -> None:
    rng = random.Random(0)
    for kind in prompt_math.KINDS:
        for _ in range(20):
            question, result = kind(rng)
            assert question
            float(result)


def test_prompts_equal_to_or_sharing_a_run_with_a_test_prompt_are_left_out() -> None:
    run = "one two three four five six seven eight nine ten eleven twelve thirteen"
    prompts = [Prompt("What is GRAVITY?", "x"), Prompt(f"Please read: {run}!", "x"), Prompt("Something else", "x")]
    kept = without_overlap(prompts, ["what is gravity", f"A text with {run} in it"])
    assert [p.text for p in kept] == ["Something else"]


@pytest.mark.parametrize(
    ("text", "finished", "result", "reason"),
    [
        ("The capital is Paris.", True, None, None),
        ("The capital is", False, None, None),
        ("12 + 3 = 15, because", False, "15", "no result before the token limit"),
        ("", True, None, "empty"),
        ("As an AI language model, no.", True, None, "refusal or talk about itself"),
        ("so it is and so it is and so it is and so it is and so it is", True, None, "repetition"),
        ("12 + 3 = 15", True, "15", None),
        ("12 + 3 = 16", True, "15", "wrong result"),
        ("I do not know.", True, "15", "wrong result"),
    ],
)
def test_reject_reason(text: str, finished: bool, result: str | None, reason: str | None) -> None:
    assert reject_reason(text, finished=finished, result=result) == reason


def test_results_and_repetitions() -> None:
    assert contains_result("She pays $1,250.00 in total.", "1250")
    assert not contains_result("15 is not the answer, 16 is.", "15")
    assert repeats("This sentence is said two times. This sentence is said two times.")
    assert not repeats("Each of these words appears in a sentence of its own. And that is fine.")
