"""GSM8K's numbers and HumanEval's programs: what counts as right, and how it says what it was judged by."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest

from ssd_lab.bench.quality import Limits, gsm8k, humaneval, score
from ssd_lab.errors import ConfigError

ANYWHERE = Limits(unguarded="run")  # harmless programs: they are scored on every machine


@dataclass(frozen=True)
class Prompt:
    text: str
    reference: str | None = None
    extra: dict = field(default_factory=dict)
    id: str = "one"


@dataclass(frozen=True)
class Said:
    text: str
    token_ids: list[int] = field(default_factory=list)


@pytest.mark.parametrize(
    ("text", "number", "method"),
    [
        ("She has 3 + 4 = 7.\n#### 7", "7", "####"),
        ("#### 1,234", "1234", "####"),
        ("#### $5.50\nQuestion: 9 apples. #### 9", "5.5", "####"),  # the text ran on past its end
        ("#### -3", "-3", "####"),
        (r"so \boxed{12} of 20", "12", "boxed"),
        ("The answer is 72 clips.", "72", "last number"),
        ("It costs $1,000.00", "1000", "last number"),
        ("12 - 5 = 7, which is 10-3", "3", "last number"),
        ("from 4 to -6", "-6", "last number"),
        ("I do not know.", None, "none"),
    ],
)
def test_the_answer_of_a_text(text: str, number: str | None, method: str):
    found, how = gsm8k.answer(text)
    assert found == (None if number is None else Decimal(number))
    assert how == method


def test_gsm8k_compares_numbers_and_not_their_spelling():
    asked = Prompt("How many?", "Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 1,072")
    right, wrong, silent = (score("gsm8k", [asked], [Said(t)]).scores[0] for t in ("#### 1072.0", "1071", "many"))
    assert (right.passed, right.found, right.expected) == (True, "1072", "1072")
    assert (wrong.passed, wrong.found) == (False, "1071")
    assert (silent.passed, silent.method) == (False, "none")


def test_a_reference_without_a_number_is_not_scored():
    result = score("gsm8k", [Prompt("How many?", None)], [Said("7")])
    assert result.scores[0].passed is None
    assert result.accuracy is None


ADD = 'def add(a, b):\n    """Add.\n    >>> add(1, 2)\n    3\n    """\n'
TESTS = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, -1) == -2\n"


def test_humaneval_runs_the_tests_where_they_are_at_hand_and_the_examples_otherwise():
    only_example = "    return 3\n"  # right for the docstring, wrong for the tests
    by_tests = score(
        "humaneval", [Prompt(ADD, None, {"test": TESTS, "entry_point": "add"})], [Said(only_example)], limits=ANYWHERE
    )
    by_examples = score("humaneval", [Prompt(ADD)], [Said(only_example)], limits=ANYWHERE)
    assert (by_tests.scores[0].passed, by_tests.methods) == (False, {"tests": 1})
    assert (by_examples.scores[0].passed, by_examples.methods) == (True, {"examples": 1})
    assert by_examples.accuracy == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "    return a + b\n",
        "    return a + b\n\n\ndef other():\n    this is not Python",
        "    return a + b\n\nprint(add(1,",
        "    return a + b\n# Example\n and prose",
        "Sure:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds.",
        "def add(a, b):\n    return a + b",
        "```python\n    return a + b\n```",
    ],
)
def test_the_candidate_is_found_in_what_models_write(text: str):
    result = score(
        "humaneval", [Prompt(ADD, None, {"test": TESTS, "entry_point": "add"})], [Said(text)], limits=ANYWHERE
    )
    assert result.scores[0].passed, result.scores[0].detail


def test_examples_are_read_in_the_forms_that_the_docstrings_use():
    def examples(*lines: str) -> list[tuple[str, str]]:
        body = "\n    ".join(lines)
        return humaneval.docstring_examples(f'def f(x):\n    """Does it.\n    {body}\n    """\n', "f")

    assert examples(">>> f(1)", "2") == [("f(1)\n", "2\n")]
    assert examples(">>> f(1) == 2") == [("f(1) == 2\n", "True\n")]
    assert examples("f([1, 2]) == [3]", "f('a)') ➞ 'b'") == [("f([1, 2])\n", "[3]\n"), ("f('a)')\n", "'b'\n")]
    assert examples("For f(3) = None.", "f(4) => 5 .") == [("f(3)\n", ""), ("f(4)\n", "5\n")]
    assert examples("f(n) == 3", "f(1) is nice", "f(1) ==> one") == []


def test_outputs_are_compared_by_value():
    prompt = Prompt('def f(x):\n    """F.\n    >>> f(1)\n    0.3\n    >>> f(2)\n    "a"\n    """\n')
    text = "    return 0.1 + 0.2 if x == 1 else 'a'\n"
    assert score("humaneval", [prompt], [Said(text)], limits=ANYWHERE).scores[0].passed


@pytest.mark.parametrize(
    ("wanted", "returned", "same"), [("True", "1", False), ("6", "6.0", True), ("[1]", "(1,)", False)]
)
def test_equal_is_what_python_calls_equal_but_a_number_is_not_a_truth_value(wanted: str, returned: str, same: bool):
    prompt = Prompt(f'def f(x):\n    """F.\n    >>> f(1)\n    {wanted}\n    """\n')
    assert score("humaneval", [prompt], [Said(f"    return {returned}\n")], limits=ANYWHERE).scores[0].passed is same


def test_a_docstring_that_its_own_solution_contradicts_judges_nobody():
    prompt = Prompt('def f(x):\n    """F.\n    >>> f(1)\n    15.0\n    """\n', reference="    return 8.0\n")
    result = score("humaneval", [prompt], [Said("    return 7.0\n")], limits=ANYWHERE)
    assert result.scores[0].passed is None
    assert "contradict" in result.scores[0].detail


def test_one_bad_candidate_does_not_stop_the_others():
    texts = ["    return a + b\n", "    while True: pass\n", "    import os; os._exit(0)\n", "    return a + b\n"]
    prompts = [Prompt(ADD, id=str(index)) for index in range(4)]
    result = score(
        "humaneval", prompts, [Said(text) for text in texts], limits=ANYWHERE.model_copy(update={"cpu_s": 1})
    )
    assert [entry.passed for entry in result.scores] == [True, False, False, True]
    assert [entry.found for entry in result.scores] == ["passed", "cpu", "ended", "passed"]
    assert result.accuracy == 0.5


class Letters:
    """A tokenizer of one id a character, of which a full stop ends the text."""

    eos_token_ids = (ord("."),)

    def decode(self, token_ids):
        return "".join(map(chr, token_ids))


def test_a_text_counts_up_to_its_end_token_only():
    text = "It is 7. And 9"
    said = Said(text, [ord(letter) for letter in text])
    asked = Prompt("How many?", "#### 7")
    assert score("gsm8k", [asked], [said]).accuracy == 0.0
    assert score("gsm8k", [asked], [said], tokenizer=Letters()).accuracy == 1.0


@pytest.mark.parametrize("dataset", ["gsm8k", "humaneval"])
def test_a_prompt_that_was_cut_is_not_scored(dataset: str):
    prompts = [Prompt(ADD, "#### 3", id=name) for name in ("whole", "cut")]
    result = score(dataset, prompts, [Said("    return 3\n")] * 2, was_cut=[False, True], limits=ANYWHERE)
    assert [entry.passed for entry in result.scores] == [True, None]
    assert "input_len" in result.scores[1].detail


def test_sets_without_right_answers_say_so():
    result = score("alpaca", [Prompt("Tell me.")], [Said("No.")])
    assert (result.metric, result.accuracy) == ("none", None)
    assert "gsm8k and humaneval" in result.note


def test_outputs_must_match_the_prompts():
    with pytest.raises(ConfigError, match="2 outputs were given for 1 prompts"):
        score("gsm8k", [Prompt("?", "#### 1")], [Said("1"), Said("1")])


def test_results_survive_storage():
    result = score("gsm8k", [Prompt("?", "#### 1")], [Said("#### 1")])
    assert result.as_dict()["accuracy"] == 1.0


def test_programs_that_nothing_keeps_in_are_not_run_and_the_set_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    prompts, said = [Prompt(ADD, "    return a + b\n")], [Said("    return 3\n")]
    refused = score("humaneval", prompts, said, limits=Limits())
    assert (refused.num_scored, refused.accuracy, refused.sandbox) == (0, None, ())
    assert "bwrap is not installed" in refused.note and "--unguarded" in refused.note
    assert score("gsm8k", [Prompt("How many?", "#### 3")], [Said("3")]).accuracy == 1.0
    allowed = score("humaneval", prompts, said, limits=ANYWHERE)
    assert (allowed.num_scored, allowed.accuracy, allowed.note) == (1, 1.0, "")
