"""Keys, sizes, queues and times; the log; how a server stops, and what a fault ends."""

from __future__ import annotations

import base64
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI

from ssd_lab.errors import CacheCapacityError, ConfigError
from ssd_lab.serve.app import make_app
from ssd_lab.serve.config import ServeConfig, read_api_keys
from ssd_lab.serve.served import load_served
from ssd_lab.serve.server import GracefulServer, bound, running, serve, url_of

KEY = "a-long-and-secret-key"
LONG = {"model": "tiny", "prompt": "Once", "max_tokens": 400, "ignore_eos": True}
SHORT = {"model": "tiny", "prompt": "Once", "max_tokens": 3, "ignore_eos": True}


def load(pair, **fields):
    return load_served(
        pair.target, pair.draft, ["sync_chain"], served_name="tiny", max_queue=1, dtype="float32", max_batch=2, **fields
    )


def wait_for(condition):
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


@pytest.fixture(scope="module")
def models(tiny_pair):
    with load(tiny_pair) as made:
        yield made


@pytest.fixture(scope="module")
def guarded(models):
    """A server with a key, small limits and a queue of one."""
    config = ServeConfig(port=0, max_queue=1, max_body_bytes=2048, max_output=450, max_choices=3, request_timeout_s=60)
    with running(make_app(models, config, ["another", KEY]), config) as url:
        yield url


@pytest.fixture(scope="module")
def client(guarded):
    with httpx.Client(base_url=guarded, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as made:
        yield made


@pytest.mark.parametrize("given", [None, "Bearer wrong", f"Bearer {KEY}x", KEY, "Basic !", "Bearer", "Bearer \xe9"])
def test_without_a_key_nothing_is_told(guarded, given):
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    for path in ("/v1/models", "/", "/live/requests", "/openapi.json"):
        answer = httpx.get(f"{guarded}{path}", headers=headers)
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
    assert httpx.post(f"{guarded}/v1/completions", json=SHORT, headers=headers).status_code == 401


def test_with_a_key_as_a_program_or_as_a_browser_sends_it(guarded, client):
    assert client.get("/v1/models").status_code == 200
    basic = base64.b64encode(f"me:{KEY}".encode()).decode()
    assert httpx.get(f"{guarded}/", headers={"Authorization": f"Basic {basic}"}).status_code == 200
    assert httpx.get(f"{guarded}/").headers["www-authenticate"].startswith("Basic")
    assert {httpx.get(f"{guarded}{path}").status_code for path in ("/health", "/ready", "/metrics")} == {200}


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client):
    assert client.post("/v1/completions", json={**SHORT, "prompt": "x" * 4096}).status_code == 413
    parts = (b"x" * 512 for _ in range(8))  # sent without saying how much it is
    answer = client.post("/v1/completions", content=parts, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "body_too_large"


def test_what_one_request_may_ask_for(client):
    for change, param in [({"max_tokens": 451}, "max_tokens"), ({"n": 4}, "n"), ({"prompt": ["a"] * 4}, "prompt")]:
        answer = client.post("/v1/completions", json={**SHORT, **change})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == param


def wait_until(condition):
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_a_full_queue_says_when_to_come_again(client, models, hold):
    places = next(iter(models)).admission
    wait_until(lambda: places.under_way == 0)  # an answer is out a moment before its place is free
    hold()
    with client.stream("POST", "/v1/completions", json={**LONG, "n": 3, "stream": True}) as running_one:
        lines = running_one.iter_lines()  # an iterator that is let go ends the request
        next(lines)
        refused = client.post("/v1/completions", json=SHORT)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "queue_full"
    hold.release()
    wait_until(lambda: places.under_way == 0)
    answer = client.post("/v1/completions", json=SHORT)
    assert answer.json()["usage"]["completion_tokens"] == 3


def test_a_request_that_takes_too_long_is_ended(tiny_pair, hold):
    config = ServeConfig(port=0, request_timeout_s=0.001)
    with load(tiny_pair) as models, running(make_app(models, config), config) as url:
        hold(after=0)
        answer = httpx.post(f"{url}/v1/completions", json=LONG, timeout=60)
        assert answer.status_code == 504 and answer.json()["error"]["code"] == "timeout"
        streamed = httpx.post(f"{url}/v1/completions", json={**LONG, "stream": True}, timeout=60)
        assert '"code":"timeout"' in streamed.text and streamed.text.endswith("data: [DONE]\n\n")
        assert next(iter(models)).admission.under_way >= 0


def test_the_access_log_is_json_without_texts_or_keys(client, caplog):
    with caplog.at_level("INFO", logger="ssd_lab.serve.access"):
        answer = client.post("/v1/completions", json={**SHORT, "prompt": "a secret"})
        wait_until(lambda: caplog.messages)  # it is written when the answer is out
        line = json.loads(caplog.messages[-1])
    assert line["status"] == 200 and line["path"] == "/v1/completions" and line["model"] == "tiny:sync_chain"
    assert line["output_tokens"] == 3 and line["finish"] == ["length"] and line["id"] == answer.headers["x-request-id"]
    assert KEY not in caplog.text and "a secret" not in caplog.text


def test_stopping_lets_running_answers_finish_and_refuses_new_ones(tiny_pair, hold):
    config = ServeConfig(port=0, grace_s=60)
    texts = []
    with load(tiny_pair) as models:
        hold()
        app = make_app(models, config)
        server = running(app, config)
        url = server.__enter__()
        with httpx.Client(base_url=url, timeout=60) as kept:  # a connection that is open when it stops
            assert kept.get("/ready").status_code == 200
            body = {**LONG, "stream": True}
            with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as stream:
                lines = stream.iter_lines()
                next(lines)
                leaving = threading.Thread(target=server.__exit__, args=(None, None, None))
                leaving.start()
                wait_until(lambda: app.state.server.is_stopping)
                assert kept.post("/v1/completions", json=SHORT).status_code == 503
                assert kept.get("/ready").status_code == 503
                hold.release()
                texts = [line for line in lines if line]
        leaving.join()
    assert texts[-1] == "data: [DONE]" and '"finish_reason":"length"' in texts[-2]


@pytest.mark.parametrize("hangs", [False, True])
def test_a_second_signal_ends_what_runs_and_its_clients_are_told(tiny_pair, monkeypatch, caplog, hold, hangs):
    config, goes_on = ServeConfig(port=0, grace_s=600), threading.Event()
    with load(tiny_pair) as models, bound(config) as listening:
        said = []
        server = GracefulServer(make_app(models, config), config, say=said.append)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_for(lambda: server.started)
        hold()
        body = {**LONG, "stream": True}
        with httpx.stream("POST", f"{url_of(listening)}/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            if hangs:
                monkeypatch.setattr("ssd_lab.serve.server.LAST_S", 0.1)
                monkeypatch.setattr("ssd_lab.engine.engine.Engine.step", lambda _: goes_on.wait(60) and [])
            for number in (1, 2):
                server.handle_exit(signal.SIGTERM, None)
                wait_for(lambda: len(said) == number)  # noqa: B023 - called here
            rest = [line for line in lines if line]
        goes_on.set()
        thread.join(60)
    assert rest[-1] == "data: [DONE]" and '"code":"stopping"' in rest[-2]
    assert "a second signal" in said[0] and "cut off" in said[1] and "Traceback" not in caplog.text


def test_a_fault_in_a_round_ends_those_in_it_and_no_others(tiny_pair, monkeypatch):
    """Two texts are in the batch, one waits for a place, and one is of another strategy."""
    config = ServeConfig(port=0)
    both = load_served(
        tiny_pair.target, tiny_pair.draft, ["sync_chain", "autoregressive"], served_name="tiny", dtype="float32",
        max_batch=2,
    )  # fmt: skip
    with both as models, running(make_app(models, config), config) as url, ThreadPoolExecutor(4) as pool:
        first, _ = (model.llm for model in models)
        goes_on, step, failed = threading.Event(), first._engine.step, []

        def ask(**change):
            return httpx.post(f"{url}/v1/completions", json={**SHORT, **change}, timeout=60)

        def ask_behind(others, **change):
            asked = pool.submit(ask, **change)
            wait_for(lambda: next(iter(models)).admission.under_way == others + 1)
            return asked

        def faulty():
            goes_on.wait(60)
            step()
            if not failed and first._engine.status().running == 2:
                failed.append(True)
                raise CacheCapacityError("out of memory, as it may happen in a round")

        monkeypatch.setattr(first._engine, "step", faulty)
        hit = [ask_behind(number, max_tokens=400, stream=number == 1) for number in range(2)]
        waiting = ask_behind(2)
        other = pool.submit(ask, model="tiny:autoregressive", max_tokens=100)
        goes_on.set()
        whole, streamed = (each.result() for each in hit)
        assert whole.status_code == 500 and "out of memory" in whole.json()["error"]["message"]
        assert "out of memory" in streamed.text and streamed.text.endswith("data: [DONE]\n\n")
        assert waiting.result().json()["usage"]["completion_tokens"] == 3
        assert other.result().json()["usage"]["completion_tokens"] == 100
        assert httpx.get(f"{url}/health").status_code == 200 and httpx.get(f"{url}/ready").status_code == 200
        assert first.status().free_blocks == first.status().num_blocks
        first.close()
        assert httpx.get(f"{url}/health").json()["error"]["code"] == "engine_ended"
        assert httpx.get(f"{url}/ready").status_code == ask().status_code == 503
        assert ask(model="tiny:autoregressive").status_code == 200


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_api_keys(tmp_path / "none")
    keys = tmp_path / "keys"
    keys.write_text("# of the team\n\nfirst\n second \n", encoding="utf-8")
    assert read_api_keys(keys) == ("first", "second")
    keys.write_text("#\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no key"):
        read_api_keys(keys)
    taken = bound(ServeConfig(port=0))
    with taken:
        taken.listen()
        with pytest.raises(ConfigError, match="give another"):
            bound(ServeConfig(port=taken.getsockname()[1]))
    with bound(ServeConfig(port=0)) as one, bound(ServeConfig(port=one.getsockname()[1])) as other:
        one.listen()  # both loaded their models meanwhile
        with pytest.raises(ConfigError, match="give another"):
            serve(FastAPI(), ServeConfig(), other, lambda: None, say=print)
    assert ServeConfig().is_loopback and ServeConfig(host="::1").is_loopback
    assert not ServeConfig(host="0.0.0.0").is_loopback
