"""Predicted outputs: drafts from what the client expects, counted by themselves; the text is the same without."""

from __future__ import annotations

import openai
import pytest

from ssd_lab.strategies.components.expected_text import ExpectedText

QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
ASKED = {"model": "bundled:prompt_lookup", "messages": QUESTION, "temperature": 0, "max_tokens": 48}


@pytest.fixture(scope="module")
def plain(client):
    return client.chat.completions.create(**ASKED)


def details(answer):
    return answer.usage.completion_tokens_details


def test_a_right_prediction_is_accepted_and_saves_rounds(client, plain):
    text = plain.choices[0].message.content
    answer = client.chat.completions.create(**ASKED, prediction={"type": "content", "content": text})
    assert answer.choices[0].message.content == text
    assert details(answer).accepted_prediction_tokens > 30 and details(plain) is None
    steps = [a.metrics["speculative_decoding"]["num_spec_steps"] for a in (answer, plain)]
    assert details(answer).accepted_prediction_tokens <= 48 and steps[0] * 2 < 48


def test_a_prediction_with_an_edit_is_found_again_behind_it(client, plain):
    text = plain.choices[0].message.content
    words = text.split(" ")
    words[len(words) // 2] = "elephants"
    parts = [{"type": "text", "text": " ".join(words)}]
    answer = client.chat.completions.create(**ASKED, prediction={"type": "content", "content": parts})
    assert answer.choices[0].message.content == text
    assert details(answer).accepted_prediction_tokens > 24 and details(answer).rejected_prediction_tokens > 0


def test_a_wrong_prediction_changes_nothing_and_counts_no_other_draft(client, plain):
    answer = client.chat.completions.create(**ASKED, prediction={"type": "content", "content": "0123456789 " * 9})
    assert answer.choices[0].message.content == plain.choices[0].message.content
    assert details(answer).accepted_prediction_tokens == 0


def test_sampled_text_of_a_seed_is_the_same_with_a_prediction(client, plain):
    asked = {**ASKED, "temperature": 0.8, "seed": 11}
    text = client.chat.completions.create(**asked).choices[0].message.content
    predicted = client.chat.completions.create(**asked, prediction={"type": "content", "content": text})
    assert predicted.choices[0].message.content == text
    assert details(predicted).accepted_prediction_tokens > 0


def test_a_model_that_does_not_draft_from_text_refuses_it(client):
    with pytest.raises(openai.BadRequestError, match="prompt_lookup") as raised:
        client.chat.completions.create(
            model="bundled", messages=QUESTION, prediction={"type": "content", "content": "The"}
        )
    assert raised.value.param == "prediction"


def test_the_place_in_the_expected_text():
    text = ExpectedText([1, 2, 3, 4, 5, 6, 1, 2, 9])
    assert text.next([], 3) == (1, 2, 3)
    assert text.next([1, 2], 3) == (3, 4, 5)
    assert text.next([1, 2, 7], 3) == ()  # elsewhere
    assert text.next([1, 2, 7, 4, 5], 2) == (6, 1)  # found again by two tokens
    assert text.next([1, 2, 7, 4, 5, 6, 1, 2], 5) == (9,)
    assert text.next([1, 2, 7, 4, 5, 6, 1, 2, 9], 5) == ()  # at its end
    assert ExpectedText([]).next([1, 2, 3], 4) == ()
