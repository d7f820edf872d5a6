"""What is refused: by a 400 that names the field; what means "leave it off" passes."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from ssd_lab.config import EngineConfig
from ssd_lab.serve import served

CHAT = {"model": "bundled", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
TEXT = {"model": "bundled", "prompt": "Hi", "max_tokens": 2}
REFUSED = [
    ("logit_bias", {"5": 1}),
    ("presence_penalty", 0.5),
    ("frequency_penalty", -1),
    ("tools", [{"type": "function", "function": {"name": "f"}}]),
    ("tool_choice", "required"),
    ("response_format", {"type": "json_object"}),
    ("reasoning_effort", "low"),
    ("store", True),
    ("modalities", ["text", "audio"]),
    ("guided_json", {"type": "object"}),
    ("service_tier", "flex"),
    ("verbosity", "low"),
    ("best_of", 2),
]
PASSING = {
    "logit_bias": {},
    "presence_penalty": 0,
    "frequency_penalty": 0.0,
    "tools": [],
    "tool_choice": "auto",
    "response_format": {"type": "text"},
    "reasoning_effort": None,
    "store": False,
    "modalities": ["text"],
    "service_tier": "auto",
    "user": "me",
    "metadata": {"a": "b"},
    "parallel_tool_calls": True,
    "n": None,
    "stop": None,
    "seed": None,
    "top_p": None,
    "stream_options": None,
    "prediction": None,
}
WRONG = [
    (CHAT, {"temperature": -1}, "temperature"),
    (CHAT, {"temperature": "hot"}, "temperature"),
    (CHAT, {"temperature": True}, "temperature"),
    (CHAT, {"top_p": 0}, "top_p"),
    (CHAT, {"n": 0}, "n"),
    (CHAT, {"n": 1000}, "n"),
    (CHAT, {"max_tokens": 0}, "max_tokens"),
    (CHAT, {"max_completion_tokens": 3}, "max_tokens"),
    (CHAT, {"top_logprobs": 2}, "top_logprobs"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (CHAT, {"logprobs": 2}, "logprobs"),
    (CHAT, {"stop": [""]}, "stop[0]"),
    (CHAT, {"stop": 5}, "stop"),
    (CHAT, {"seed": 2**63}, "seed"),
    (CHAT, {"stream": "yes"}, "stream"),
    (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
    (CHAT, {"stream": True, "stream_options": {"else": 1}}, "stream_options.else"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": "Hi"}, "messages"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "tool", "content": "4"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
    (CHAT, {"messages": [{"role": "user", "content": "Hi", "tool_calls": [1]}]}, "messages[0].tool_calls"),
    (CHAT, {"messages": [{"role": "user", "content": "word " * 3000}]}, "messages"),
    (CHAT, {"stop_token_ids": [99999]}, "stop_token_ids"),
    (CHAT, {"unheard_of": 1}, "unheard_of"),
    (CHAT, {"model": 3}, "model"),
    (TEXT, {"prompt": []}, "prompt"),
    (TEXT, {"prompt": ""}, "prompt"),
    (TEXT, {"prompt": [[]]}, "prompt"),
    (TEXT, {"prompt": {"text": "Hi"}}, "prompt"),
    (TEXT, {"prompt": [1, "a"]}, "prompt"),
    (TEXT, {"prompt": [999999]}, "prompt"),
    (TEXT, {"prompt": [-1]}, "prompt"),
    (TEXT, {"prompt": ["Hi"] * 65}, "prompt"),
    (TEXT, {"max_tokens": 0}, "max_tokens"),
    (TEXT, {"logprobs": 21}, "logprobs"),
    (TEXT, {"suffix": "end"}, "suffix"),
    # so much that looking at it would keep others waiting
    (CHAT, {f"field_{i}": 1 for i in range(5000)}, "field_4999"),
    (CHAT, {"messages": [{"role": "user", "content": "Hi"}] * 5000}, "messages"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}] * 2500}] * 2}, "messages"),
    (CHAT, {"messages": [{"role": "user", "content": "a " * 40_000}]}, "messages"),
    (
        CHAT,
        {"model": "bundled:prompt_lookup", "prediction": {"type": "content", "content": "a" * 80_000}},
        "prediction",
    ),
    (CHAT, {"stop_token_ids": [1] * 300}, "stop_token_ids"),
    (TEXT, {"prompt": ["Hi"] * 5000}, "prompt"),
    (TEXT, {"prompt": [1] * 2000}, "prompt"),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_a_field_that_the_engine_does_not_do_is_refused_by_its_name(client, field, value):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**CHAT, extra_body={field: value})
    assert raised.value.param == field and field in raised.value.message


def test_values_that_mean_leave_it_off_pass(client):
    assert client.chat.completions.create(**CHAT, extra_body=PASSING).usage.completion_tokens == 2


@pytest.mark.parametrize(("body", "change", "param"), WRONG, ids=[f"{p}-{i}" for i, (_, _, p) in enumerate(WRONG)])
def test_wrong_values_are_refused_with_the_field_they_are_in(url, body, change, param):
    path = "chat/completions" if "messages" in body else "completions"
    answer = httpx.post(f"{url}/v1/{path}", json={**body, **change}, timeout=60)
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert error["param"] == param and error["message"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {"content-type": "application/json"}),
        (b"{", {"content-type": "application/json"}),
        (b"[]", {"content-type": "application/json"}),
        (b"null", {"content-type": "application/json"}),
        (b'{"model": "bundled", "messages"', {"content-type": "application/json"}),
        (b"[" * 100_000, {"content-type": "application/json"}),
        (b'{"model": "bundled", "prompt": "Hi", "seed": ' + b"1" * 5000 + b"}", {"content-type": "application/json"}),
        (b'{"model": "bundled", "prompt": "\\ud800"}', {"content-type": "application/json"}),
        (b'{"model": "bundled", "prompt": "Hi", "temperature": NaN}', {"content-type": "application/json"}),
        (b"\xff\xfe", {"content-type": "application/json"}),
        (b"model=bundled", {"content-type": "application/x-www-form-urlencoded"}),
        (b'{"model": "bundled", "prompt": "Hi"}', {"content-type": "text/plain"}),
    ],
)
def test_a_body_that_is_no_request_is_refused_in_the_same_shape(url, content, headers):
    answer = httpx.post(f"{url}/v1/completions", content=content, headers=headers, timeout=60)
    assert answer.status_code == 400 and answer.json()["error"]["message"]


@pytest.mark.parametrize("message", [{"content": "\ud83d"}, {"name": "\ud83d", "content": "Hi"}])
def test_half_a_character_in_a_message_is_refused_in_words(url, message):
    content = json.dumps({**CHAT, "messages": [{"role": "user", **message}]})
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{url}/v1/chat/completions", content=content, headers=headers, timeout=60)
    assert answer.status_code == 400 and "valid Unicode" in answer.json()["error"]["message"]


def test_other_paths_and_methods_have_the_same_shape(url):
    assert httpx.get(f"{url}/v1/nothing").json()["error"]["message"].startswith("Not Found")
    assert httpx.get(f"{url}/v1/completions").status_code == 405
    assert httpx.post(f"{url}/v1/completions", json=TEXT | {"model": "gpt-4"}).json()["error"]["param"] == "model"


@pytest.mark.parametrize("change", [{"model": "x" * 100_000}, {"x" * 100_000: 1}, {"temperature": "x" * 100_000}])
def test_what_was_sent_is_not_sent_back_whole(url, change):
    answer = httpx.post(f"{url}/v1/completions", json=TEXT | change)
    assert answer.status_code in (400, 404) and len(answer.content) < 3000


@pytest.mark.parametrize(
    ("strategies", "expected"),
    [
        (["eagle3", "sync_chain", "prompt_lookup"], {"eagle3": None, "sync_chain": "mine", "prompt_lookup": None}),
        (["eagle3"], {"eagle3": "mine"}),
    ],
)
def test_a_draft_model_is_no_head_of_the_strategies_beside(monkeypatch, strategies, expected):
    """With eagle3 alone a name is a head, or refused; beside a strategy that drafts with a model it is that model."""
    given = {}

    class Spy:
        config, draft = EngineConfig(), None

        def __init__(self, target, draft, strategy, **fields):
            self.target, given[strategy] = target, draft

        def close(self): ...

    monkeypatch.setattr(served, "LLM", Spy)
    served.load_served("target", "mine", strategies)
    assert given == expected
