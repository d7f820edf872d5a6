"""The real `openai` client for every endpoint and option; texts are those of the same engine offline."""

from __future__ import annotations

import openai
import pytest

import ssd_lab
from ssd_lab.serve.served import ServedModels

QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
TEXT = "Water is"


def offline(models: ServedModels, prompt, **params):
    """What the first model's engine answers when it is asked without a server."""
    llm = next(iter(models)).llm
    return llm.generate([prompt], ssd_lab.SamplingParams(**params))[0]


def test_models_are_listed_by_target_and_by_strategy(client):
    names = [model.id for model in client.models.list()]
    assert names == ["bundled", "bundled:async_tree", "bundled:prompt_lookup"]
    assert client.models.retrieve("bundled:prompt_lookup").id == "bundled:prompt_lookup"
    with pytest.raises(openai.NotFoundError, match="known are bundled"):
        client.models.retrieve("gpt-4")


@pytest.mark.quick("bundled")
@pytest.mark.parametrize("model", ["bundled", "bundled:prompt_lookup"])
def test_a_greedy_answer_is_the_offline_text(client, models, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_completion_tokens=24)
    expected = offline(models, QUESTION, max_tokens=24)
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 24 and answer.usage.prompt_tokens == len(expected.prompt_ids)


@pytest.mark.quick("0.9")
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_stream_joined_is_the_answer_of_the_same_seed(client, models, temperature):
    asked = {"model": "bundled", "messages": QUESTION, "temperature": temperature, "seed": 7, "max_tokens": 24}
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == offline(models, QUESTION, max_tokens=24, temperature=temperature, seed=7).text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "length"
    assert all(chunk.usage is None for chunk in chunks[:-1]) and chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 24
    assert chunks[-1].metrics["speculative_decoding"]["num_spec_tokens"] == 6


def test_a_completion_continues_the_text_itself(client, models):
    asked = {"model": "bundled", "temperature": 0, "max_tokens": 12}
    answer = client.completions.create(prompt=TEXT, **asked)
    expected = offline(models, TEXT, max_tokens=12)
    assert answer.choices[0].text == expected.text
    ids = client.completions.create(prompt=expected.prompt_ids, **asked)
    assert ids.choices[0].text == expected.text
    streamed = client.completions.create(prompt=TEXT, stream=True, **asked)
    assert "".join(chunk.choices[0].text for chunk in streamed) == expected.text
    assert client.completions.create(model="bundled", prompt=TEXT).usage.completion_tokens <= 16


def test_several_prompts_and_several_texts_of_each(client):
    asked = {"model": "bundled", "n": 2, "seed": 3, "temperature": 1.0, "max_tokens": 8}
    answer = client.completions.create(prompt=[TEXT, "Bread is"], **asked)
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3] and len(set(texts)) == 4
    assert texts[2] == client.completions.create(prompt="Bread is", **{**asked, "n": 1}).choices[0].text
    assert answer.metrics is None  # of one text only, as vLLM has it
    streamed = ["", "", "", ""]
    for chunk in client.completions.create(prompt=[TEXT, "Bread is"], stream=True, **asked):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == texts


def test_without_a_seed_every_text_is_another(client):
    asked = {"model": "bundled", "messages": QUESTION, "temperature": 1.0, "max_tokens": 8}
    texts = {client.chat.completions.create(**asked).choices[0].message.content for _ in range(3)}
    assert len(texts) > 1


def streamed(client, **asked):
    """The pieces of each text."""
    pieces = [[] for _ in range(asked["n"])]
    for chunk in client.chat.completions.create(**asked, stream=True):
        pieces[chunk.choices[0].index].append(chunk.choices[0].delta.content or "")
    return pieces


def cut(text, stops):
    """Up to where the first of them begins."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


@pytest.mark.full
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_stop_strings_at_the_borders_of_chunks_are_no_part_of_any_text(client, temperature):
    """Over two chunks; one the beginning of another, when hot at a character of several bytes; and one whose beginning
    ends a text, which is told in the end.
    """
    asked = {"model": "bundled", "messages": QUESTION, "temperature": temperature, "max_tokens": 16, "n": 2}
    for asked["seed"] in range(31, 61):  # which of them gives such a character depends on the machine
        pieces = streamed(client, **asked)
        whole = ["".join(each) for each in pieces]
        if temperature == 0 or not whole[0].isascii():
            break
    border = len("".join(pieces[0][: len(pieces[0]) // 2]))
    wide = next((place for place, character in enumerate(whole[0]) if not character.isascii()), border)
    assert temperature == 0 or whole[0][wide] > "\x7f"
    over, around = whole[0][border - 2 : border + 2], whole[0][wide - 1 : wide + 2]
    for stops in ([over], [around + "~~", around, around[:2]], [whole[1][-2:] + "~~"]):
        expected = [cut(text, stops) for text in whole]
        assert ["".join(each) for each in streamed(client, **asked, stop=stops)] == expected
    choices = client.chat.completions.create(**asked, stop=[around]).choices
    assert [choice.message.content for choice in choices] == [cut(text, [around]) for text in whole]
    assert choices[0].finish_reason == "stop"


def test_logprobs_of_a_chat(client, models):
    asked = {"model": "bundled", "messages": QUESTION, "temperature": 0, "max_tokens": 12}
    told = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    expected = offline(models, QUESTION, max_tokens=12, logprobs=3)
    assert [entry.logprob for entry in told] == pytest.approx([entry["logprob"] for entry in expected.logprobs])
    assert "".join(entry.token for entry in told) == expected.text
    assert all(len(entry.top_logprobs) == 3 and entry.top_logprobs[0].token == entry.token for entry in told)
    assert bytes(byte for entry in told for byte in entry.bytes).decode() == expected.text
    streamed = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3, stream=True)
    pieces = [chunk.choices[0].logprobs.content for chunk in streamed if chunk.choices[0].logprobs]
    assert [entry.logprob for piece in pieces for entry in piece] == pytest.approx([entry.logprob for entry in told])
    bare = client.chat.completions.create(**asked, logprobs=True).choices[0].logprobs.content
    assert [entry.top_logprobs for entry in bare] == [[]] * 12


def test_echo_with_logprobs_scores_the_prompt(client, models):
    llm = next(iter(models)).llm
    ids = llm.encode(TEXT)
    asked = {"model": "bundled", "prompt": TEXT, "temperature": 0, "echo": True, "logprobs": 2}
    answer = client.completions.create(**asked, max_tokens=4).choices[0]
    assert answer.text.startswith(TEXT) and len(answer.text) > len(TEXT)
    told = answer.logprobs
    assert told.token_logprobs[0] is None and len(told.tokens) == len(ids) + 4
    scored = llm.score(ids).log_softmax(-1)
    expected = [float(scored[place, token]) for place, token in enumerate(ids[1:])]
    assert told.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=1e-4)
    assert "".join(told.tokens) == answer.text
    assert [answer.text[place:].startswith(token) for place, token in zip(told.text_offset, told.tokens, strict=True)]
    alone = client.completions.create(**asked, max_tokens=0)
    assert alone.choices[0].text == TEXT and alone.usage.completion_tokens == 0
    chunks = list(client.completions.create(**asked, max_tokens=4, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.text
    offsets = [place for chunk in chunks for place in chunk.choices[0].logprobs.text_offset]
    assert offsets == told.text_offset


@pytest.mark.full
def test_an_answer_without_a_limit_ends_with_the_context_or_the_model(client):
    answer = client.chat.completions.create(model="bundled", messages=QUESTION, temperature=0)
    assert answer.choices[0].finish_reason in ("stop", "length") and answer.usage.total_tokens <= 1024


def test_parts_developer_and_what_clients_send_back_of_an_answer(client, models):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hi.", "refusal": None, "tool_calls": []},
        QUESTION[0],
    ]
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    plain += [{"role": "assistant", "content": "Hi."}, QUESTION[0]]
    answer = client.chat.completions.create(model="bundled", messages=messages, temperature=0, max_tokens=8)
    assert answer.choices[0].message.content == offline(models, plain, max_tokens=8).text
