"""The front of replicas, with two of them in this process: how it shares out, adds up, and what a loss ends."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest

from ssd_lab.errors import ConfigError
from ssd_lab.serve.config import ServeConfig
from ssd_lab.serve.replicas.forwarding import Replicas
from ssd_lab.serve.replicas.front import make_front
from ssd_lab.serve.replicas.prefixes import CHUNK, PrefixTable, marks_of
from ssd_lab.serve.replicas.replica import Load, Replica
from ssd_lab.serve.replicas.routing import SLACK, Routing
from ssd_lab.serve.replicas.shares import Share, gpus_of, share_of
from ssd_lab.serve.server import running

BODY = {"model": "tiny", "prompt": "Once", "max_tokens": 40, "ignore_eos": True, "temperature": 0}
CONFIG = ServeConfig(port=0, request_timeout_s=60, max_body_bytes=4096)


class Answers:
    """As Ray's: an iterator that can be cancelled."""

    def __init__(self, found):
        self.found, self.running = found, None

    async def __aiter__(self):
        while True:
            self.running = asyncio.ensure_future(anext(self.found))
            try:
                messages = await self.running
            except (StopAsyncIteration, asyncio.CancelledError):
                return
            yield messages

    def cancel(self):
        if self.running is not None:
            self.running.cancel()


class Two(Replicas):
    """In turn. lost: raises so many messages on."""

    wanted = 2

    def __init__(self, load):
        self.them = [Replica(load, rank) for rank in range(2)]
        self.asked = 0
        self.lost_after = None

    def ask(self, asked, marks):
        self.asked += 1
        return Answers(self.losing(self.them[self.asked % 2].answer(asked, marks)))

    async def losing(self, messages):
        left = self.lost_after
        async for each in messages:
            if left is not None:
                if left == 0:
                    raise ConnectionError("its process died")
                left -= 1
            yield each

    async def everyone(self, method, *arguments):
        return [await getattr(each, method)(*arguments) for each in self.them]


@pytest.fixture(scope="module")
def two(tiny_pair):
    fields = {"target": tiny_pair.target, "draft": tiny_pair.draft, "strategies": ["sync_chain"], "dtype": "float32"}
    made = Two(Load({**fields, "served_name": "tiny", "max_batch": 2}, CONFIG))
    yield made
    for each in made.them:
        each.__del__()


@pytest.fixture(scope="module")
def client(two):
    app = make_front(two, CONFIG)
    with running(app, CONFIG) as url, httpx.Client(base_url=url, timeout=60) as made:
        yield made


@pytest.fixture(autouse=True)
def nobody_is_lost(two):
    two.lost_after = None


def number(client, name):
    """By engine."""
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name}{{")]
    return {line.split('engine="')[1][0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def test_each_replica_gives_the_same_text_whole_and_in_pieces(client):
    texts = set()
    for _ in range(2):
        answer = client.post("/v1/completions", json=BODY)
        assert answer.status_code == 200 and answer.headers["x-request-id"]
        texts.add(answer.json()["choices"][0]["text"])
        with client.stream("POST", "/v1/completions", json={**BODY, "stream": True}) as stream:
            events = [line.removeprefix("data: ") for line in stream.iter_lines() if line]
        assert events.pop() == "[DONE]"
        texts.add("".join(json.loads(event)["choices"][0]["text"] for event in events))
    assert len(texts) == 1


def test_numbers_and_requests_of_all_replicas_stand_together(client, two):
    client.post("/v1/completions", json=BODY)
    client.post("/v1/completions", json=BODY)
    tokens = number(client, "vllm:generation_tokens_total")
    assert set(tokens) == {"0", "1"} and min(tokens.values()) > 0
    text = client.get("/metrics").text
    assert text.count("# TYPE vllm:generation_tokens_total counter") == 1
    assert 'ssd_lab:http_responses_total{path="/v1/completions",status="200"}' in text
    rows = client.get("/live/requests").json()["requests"]
    assert {row["replica"] for row in rows} == {0, 1}
    assert rows == sorted(rows, key=lambda row: -row["begun"])
    for row in rows[:2]:
        assert "<html" in client.get(f"/live/requests/{row['id']}").text
        assert client.get(f"/live/requests/{row['id']}/trace").text.count("\n") > row["rounds"]
    assert client.get("/live/requests/none").status_code == 404


def test_what_a_replica_refuses_and_what_the_front_does(client):
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert "/v1/completions" in client.get("/openapi.json").json()["paths"]
    assert "Requests" in client.get("/").text
    for body, status in [
        ({**BODY, "tools": [1]}, 400),
        ({**BODY, "model": "other"}, 404),
        ({"prompt": "x" * 5000}, 413),
    ]:
        answer = client.post("/v1/completions", json=body)
        assert answer.status_code == status and answer.json()["error"]["message"]
    assert client.post("/v1/nothing").status_code == 404 and client.delete("/v1/models").status_code == 405
    assert client.get("/health").json() == {"status": "ok", "replicas": 2} and client.get("/ready").status_code == 200


def test_a_client_that_leaves_ends_its_request(client, two, hold):
    hold()
    body = {**BODY, "max_tokens": 450, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as stream:
        next(stream.iter_lines())
    end_s = time.monotonic() + 60
    while (free := number(client, "ssd_lab:kv_blocks_free")) != number(client, "ssd_lab:kv_blocks"):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert set(free) == {"0", "1"}
    assert not any(model.admission.under_way for each in two.them for model in each._models)


def test_a_replica_that_is_lost_ends_its_own_requests_in_words(client, two):
    two.lost_after = 0
    answer = client.post("/v1/completions", json=BODY)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "replica_lost"
    two.lost_after = 2
    streamed = client.post("/v1/completions", json={**BODY, "stream": True}).text
    assert '"code": "replica_lost"' in streamed and streamed.endswith("data: [DONE]\n\n")
    two.lost_after = None
    assert client.post("/v1/completions", json=BODY).status_code == 200


def test_after_the_grace_what_still_runs_is_told_so(two, hold):
    hold()
    config = CONFIG.model_copy(update={"grace_s": 0.0})
    server = running(make_front(two, config), config)
    url = server.__enter__()
    body = {**BODY, "max_tokens": 450, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as stream:
        lines = stream.iter_lines()
        next(lines)
        server.__exit__(None, None, None)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]" and '"code": "stopping"' in rest[-2]


def test_models_that_cannot_be_loaded_are_told_not_raised():
    assert "no-such-strategy" in str(Replica(Load({"strategies": ["no-such-strategy"]}, CONFIG), 0).failure)


def test_beginnings_are_known_by_whole_pieces():
    def ask(user, model="m"):
        system = {"role": "system", "content": "s" * 3 * CHUNK}
        messages = [system, {"role": "user", "content": user}]
        return marks_of(json.dumps({"messages": messages, "model": model}).encode())

    table = PrefixTable(most=8)
    table.note(ask("a"), "first")
    assert table.holders(ask("b" * 500)) == ["first"] and table.holders(ask("a", "other")) == []
    table.note(ask("b" * 500), "second")
    assert table.holders(ask("c")) == ["second", "first"] and table.holders(ask("b" * 500)) == ["second"]
    table.note(tuple(range(8)), "third")
    assert table.holders(ask("a")) == []  # only the latest are remembered
    for body in (b"", b"[]", b'{"model": 1}', b"\xff", b'{"model": "m", "prompt": "short"}', b"[" * 100_000):
        assert marks_of(body) == ()


def test_alike_prompts_go_to_one_replica_from_the_moment_the_first_is_routed():
    routing, pair = Routing(), ["a", "b"]
    assert len({routing.order((1, 2), pair)[0] for _ in range(4)}) == 1  # nobody has answered yet
    assert {routing.order((), pair)[0] for _ in range(2)} == {"a", "b"}
    holder, other = routing.order((1, 3), pair)
    for _ in range(SLACK):
        routing.sent(holder)
    assert routing.order((1, 2), pair)[0] == holder and routing.order((), pair)[0] == other
    routing.sent(holder)  # its queue is too long now, for however long that takes
    assert routing.order((1, 2), pair)[0] == other
    for _ in range(SLACK + 2):
        routing.ended(holder)
    assert routing.under_way[holder] == 0
    assert {routing.order((1, 2), pair)[0] for _ in range(2)} == {"a", "b"}  # both know it: the shortest queue, in turn


@pytest.mark.parametrize(
    ("machines", "replicas", "gpus", "share"),
    [
        ([{"CPU": 2}], 2, 0, Share(1, 0)),
        ([{"CPU": 2}], 3, 0, Share(0.666, 0)),
        ([{"CPU": 5}, {"CPU": 5}], 3, 0, Share(2, 0)),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 64}], 2, 2, Share(8, 2)),
    ],
)
def test_machines_are_shared_out(machines, replicas, gpus, share):
    assert share_of(machines, replicas, gpus) == share


def test_gpus_are_those_of_the_placement():
    assert gpus_of([{"placement": "target=cuda:0,cuda:1 draft=cuda:2"}, {"gpus": 2}], True) == 3
    assert gpus_of([{"placement": "target=cpu,cpu draft=cpu"}], True) == gpus_of([{}], False) == 0
    assert gpus_of([{}], True) == gpus_of([{"device": "cuda"}], True) == 1
    with pytest.raises(ConfigError, match="numbered within each"):
        gpus_of([{"placement": "target=cuda:2"}], True)
    with pytest.raises(ConfigError, match=r"2 replicas of 3 GPUs .* room for 1 \(5 GPUs"):
        share_of([{"CPU": 8, "GPU": 5}], 2, 3)
