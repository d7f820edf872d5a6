"""Many requests that are wrong in some way, and whatever the server's own description allows."""

from __future__ import annotations

import json
import random

import httpx
import pytest

from ssd_lab.serve.app import make_app
from ssd_lab.serve.config import ServeConfig
from ssd_lab.serve.served import load_served
from ssd_lab.serve.server import running

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
GOOD = {
    "completions": {"model": "bundled", "prompt": "Hi", "max_tokens": 2},
    "chat/completions": {"model": "bundled", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
}
VALUES = [
    None,
    True,
    -1,
    10**40,
    1.5,
    float("inf"),
    "",
    "x",
    "\u0000",
    [],
    [[]],
    [None],
    {},
    {"a": 1},
    [1, "a"],
    [[1], ["a"]],
]


def broken(draw: random.Random) -> tuple[str, bytes]:
    """A path, and a body that is not what belongs there."""
    path, body = draw.choice(list(GOOD.items()))
    text = json.dumps(body)
    kind = draw.randrange(5)
    if kind == 0:  # cut off
        return path, text[: draw.randrange(1, len(text))].encode()
    if kind == 1:  # a byte that is another
        place = draw.randrange(len(text))
        return path, text[:place].encode() + bytes([draw.randrange(128, 256)]) + text[place + 1 :].encode()
    if kind == 2:  # a field that is missing
        gone = draw.choice(["model", "prompt" if "prompt" in body else "messages"])
        return path, json.dumps({name: value for name, value in body.items() if name != gone}).encode()
    if kind == 3:  # a field that nobody knows
        return path, json.dumps({**body, f"field_{draw.randrange(10**6)}": draw.choice(VALUES)}).encode()
    name, value = (
        draw.choice(["temperature", "n", "seed", "top_p", "stream_options", "max_tokens"]),
        draw.choice(["x", {"a": 1}, [1], -(10**30)]),
    )
    return path, json.dumps({**body, name: value}).encode()


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.full)])
def test_malformed_requests_are_all_refused_with_a_reason(url, count):
    draw = random.Random(0)
    with httpx.Client(base_url=f"{url}/v1/", headers={"content-type": "application/json"}, timeout=60) as client:
        for _ in range(count):
            path, content = broken(draw)
            answer = client.post(path, content=content)
            assert answer.status_code == 400, (path, content, answer.text)
            assert len(answer.json()["error"]["message"]) > 10
        assert client.post("completions", json=GOOD["completions"]).status_code == 200


@pytest.mark.full
@pytest.mark.timeout(120)
def test_what_the_description_allows_is_answered_as_it_says():
    """schemathesis makes requests from the description, right and wrong ones, and checks status, type and shape."""
    import hypothesis
    import schemathesis

    config = ServeConfig(port=0, max_output=2, max_choices=2)
    models = load_served(strategies=["sync_chain", "prompt_lookup"], draft_link="inline")
    app = make_app(models, config)
    schema = schemathesis.openapi.from_dict(app.openapi())
    wanted = [getattr(schemathesis.checks, name) for name in CHECKS]
    settings = hypothesis.settings(
        max_examples=10,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    with running(app, config) as url:
        schema.config.update(base_url=url)
        for found in schema.get_all_operations():
            operation = found.ok()
            statuses = statuses_of(settings, operation, wanted)
            assert 200 in statuses, operation.path  # models and limits are in the description


def statuses_of(settings, operation, wanted):
    """Of the answers to what schemathesis asks."""
    import hypothesis

    statuses = set()

    @settings
    @hypothesis.given(case=operation.as_strategy())
    def ask(case):
        statuses.add(case.call_and_validate(checks=wanted, timeout=60).status_code)

    ask()
    return statuses
