"""Load on a server that answers as the test says: who asks when, what is measured, what fails and is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from fake_openai import FakeServer, Reply

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.inputs import prompts_of
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.serving.client import Client, Timing
from ssd_lab.bench.serving.config import Limits, LoadConfig
from ssd_lab.bench.serving.measured import notes_of, repeat_of
from ssd_lab.bench.serving.run import chosen_model, run_load
from ssd_lab.bench.serving.workload import Ask, arrival_times, asks
from ssd_lab.client.address import Address
from ssd_lab.demo import canned_prompts
from ssd_lab.errors import ConfigError, ServerError


def config_of(url: str = "http://127.0.0.1", requests: int = 12, **load: Any) -> BenchConfig:
    how = {"concurrency": None if "rate" in load else 3, "warmup": 0, **load}
    return BenchConfig(
        datasets=("example",), num_sequences=requests, output_len=8,
        load=LoadConfig(url=f"{url}/v1", model="fake", **how),
    )  # fmt: skip


def measured(server: FakeServer, **load: Any) -> BenchResult:
    return run_load([config_of(server.url, **load)], [Address.of(server.url)])[0]


def requests_of(result: BenchResult) -> Any:
    return result.datasets["example"].repeats[0].requests


def test_a_closed_loop_keeps_its_clients_busy_and_asks_each_prompt_in_order():
    with FakeServer(lambda number, body: Reply(gap_s=0.01)) as server:
        result = measured(server)
        assert server.most_running == 3
        said = [seen.body["messages"][0]["content"] for seen in server.seen]
    canned = canned_prompts()
    assert sorted(said) == sorted((canned * 12)[:12])
    assert len(requests_of(result)) == 12


def test_times_are_at_least_those_of_the_server():
    with FakeServer(lambda number, body: Reply(words=("a", "b", "c"), first_s=0.08, gap_s=0.03)) as server:
        for request in requests_of(measured(server)):
            assert request.first_token_s >= 0.08
            assert request.latency_s >= 0.08 + 2 * 0.03
            assert len(request.gaps_s) == 2
            assert sum(request.gaps_s) >= 2 * 0.03 - 0.005  # of two reads, either may be late
            assert request.num_output_tokens == 3


def test_an_open_loop_waits_for_nobody():
    with FakeServer(lambda number, body: Reply(first_s=0.5)) as server:
        result = measured(server, rate=100.0, arrivals="constant")
        assert server.most_running > 3
    assert [request.error for request in requests_of(result)] == [None] * 12


def test_arrivals_are_of_the_seed_and_of_the_rate():
    config = config_of(rate=5.0, requests=4000)
    times = np.array(arrival_times(config, 0))
    assert arrival_times(config, 0) == times.tolist()
    assert arrival_times(config, 1) != times.tolist()
    assert arrival_times(config.model_copy(update={"seed": 1}), 0) != times.tolist()
    gaps = np.diff(times)
    assert times[0] == 0
    assert abs(gaps.mean() * 5 - 1) < 6.5 / len(gaps) ** 0.5  # of a mean of exponentials: 1e-9 beyond that
    assert abs((gaps > 0.2).mean() - np.exp(-1)) < 6.5 * 0.5 / len(gaps) ** 0.5
    constant = arrival_times(config_of(rate=4.0, arrivals="constant", duration_s=1.0), 0)
    assert constant == [0.0, 0.25, 0.5, 0.75]


def test_every_server_gets_the_same_requests_and_repeats_have_seeds_of_their_own():
    with FakeServer() as first, FakeServer() as second:
        servers = (first, second)
        configs = [config_of(each.url, concurrency=1).model_copy(update={"repeats": 2}) for each in servers]
        run_load(configs, [Address.of(each.url) for each in servers])
        bodies = [[seen.body for seen in each.seen] for each in servers]
    assert bodies[0] == bodies[1]
    assert len(bodies[0]) == 24
    assert bodies[0][0]["messages"] == bodies[0][12]["messages"]
    assert bodies[0][0]["seed"] != bodies[0][12]["seed"]
    assert bodies[0][0]["ignore_eos"] is True


def test_a_duration_ends_the_asking_and_not_the_answers():
    with FakeServer(lambda number, body: Reply(gap_s=0.1)) as server:
        result = measured(server, duration_s=0.3)
    done = requests_of(result)
    assert 3 <= len(done) < 12
    assert all(request.latency_s >= 0.2 for request in done)
    assert result.datasets["example"].repeats[0].wall_s >= 0.3


FAILURES = {
    "http 429": Reply(status=429),
    "http 500": Reply(status=500),
    "malformed event": Reply(malformed_at=1),
    "error in stream": Reply(error_at=1),
    "connection broke": Reply(drop_at=2),
    "ended early": Reply(done=False, finish_reason=None),
    "timeout": Reply(first_s=30),
}


def test_failures_are_counted_by_their_reason_and_are_in_no_time():
    script = [*FAILURES.values(), Reply()]
    with FakeServer(lambda number, body: script[number % len(script)]) as server:
        result = measured(server, requests=16, timeout_s=1.0, limits={"latency_ms": 10_000})
    done = requests_of(result)
    failed = [request for request in done if request.error]
    assert {request.error for request in failed} == set(FAILURES)
    assert all(request.latency_s is None and request.num_output_tokens == 0 for request in failed)
    assert sum(request.error is None for request in done) == 2
    told = next(note for note in result.notes if "failed" in note)
    assert told.startswith("14 of 16 requests failed: ")
    assert all(f"{reason} (2)" in told for reason in FAILURES)
    found = result.datasets["example"].estimates
    assert found["failed_share"].mean == 14 / 16
    repeat = result.datasets["example"].repeats[0]
    assert found["goodput"].mean == pytest.approx(2 / repeat.wall_s)


def test_the_warm_up_counts_for_nothing_and_says_what_would_not_work():
    with FakeServer() as server:
        result = measured(server, warmup=5)
        assert len(server.seen) == 17
        assert len(requests_of(result)) == 12
    with FakeServer(lambda number, body: Reply(status=400, said="unknown field ignore_eos")) as server:
        with pytest.raises(ServerError, match=r"not one request worked.*unknown field.*--no-ignore-eos"):
            measured(server, warmup=2)
        assert len(server.seen) == 2


def test_tokens_are_the_servers_count_or_events_with_a_note():
    with FakeServer(lambda number, body: Reply(per_event=4, usage=number % 2 == 0)) as server:
        result = measured(server, concurrency=1)
    assert [request.num_output_tokens for request in requests_of(result)] == [12, 3] * 6
    assert any(note.startswith("6 answers came without token counts") for note in result.notes)


def test_plain_completions_send_prompts_as_they_are():
    with FakeServer() as server:
        result = measured(server, endpoint="completions")
        assert server.seen[0].path == "/v1/completions"
        assert server.seen[0].body["prompt"] in canned_prompts()
    assert requests_of(result)[0].num_output_tokens == 3


def timing(due_s: float, first_s: float, gaps_s: list[float], tokens: int, *, late_s: float = 0.0) -> Timing:
    events = np.cumsum([due_s + first_s, *gaps_s]).tolist()
    return Timing(
        Ask("p", "", 8, 0), due_s, sent_s=due_s + late_s, end_s=events[-1], event_s=events, num_tokens=tokens,
        finish_reason="stop",
    )  # fmt: skip


def test_figures_of_known_times():
    limits = {"first_token_ms": 150, "token_ms": 60}
    load = config_of(rate=1.0, limits=limits).load
    assert load is not None
    known = [timing(0, 0.1, [0.1, 0.1], 5), timing(1, 0.2, [0.2], 3), timing(2, 0.1, [0.3], 3, late_s=0.08)]
    from ssd_lab.bench.figures import estimates

    found = {name: each.mean for name, each in estimates([repeat_of(known, load)], 0).items()}
    assert found["first_token_s_p50"] == pytest.approx(0.1)
    assert found["latency_s_p50"] == pytest.approx(0.4)
    assert found["token_latency_s_p50"] == pytest.approx(0.1)  # 0.05, 0.1 and 0.15
    assert found["gap_s_p50"] == pytest.approx(0.15)
    assert found["total_tokens_per_second"] == pytest.approx(11 / 2.4)
    assert found["requests_per_second"] == pytest.approx(3 / 2.4)
    assert found["goodput"] == pytest.approx(1 / 2.4)  # the second began too late, the third was too slow
    assert found["failed_share"] == 0
    assert "decode_tokens_per_second" not in found
    assert any("generator was late" in note for note in notes_of(known, load))


def test_limits_judge_only_what_they_name():
    assert Limits().met(9, 9, 9) is None
    assert Limits(latency_ms=500).met(9, 9, 0.5) is True
    assert Limits(token_ms=5).met(0, None, 1) is True
    assert Limits(token_ms=5).met(0, 0.006, 1) is False


def test_prompts_go_round_with_ids_of_their_own():
    config = config_of()
    prompts = prompts_of(config, "example", None)[:2]
    many = asks(config, "example", prompts, 0)
    first, second, third = next(many), next(many), next(many)
    assert (first.text, first.prompt_id) == (prompts[0].text, "example/0/text")
    assert (third.text, third.prompt_id) == (first.text, "example/0/text#2")
    assert len({first.seed, second.seed, third.seed}) == 3


def test_one_loop_and_one_model():
    for wrong in ({"concurrency": 1, "rate": 1.0}, {"concurrency": None}):
        with pytest.raises(ValueError, match="a closed loop"):
            config_of(**wrong)
    with FakeServer(models=("a", "b")) as server:
        address = Address.of(server.url)
        assert chosen_model(address, None) == "a"
        with pytest.raises(ConfigError, match="it has a, b"):
            chosen_model(address, "c")


def test_a_request_that_nobody_waits_for_leaves_the_server():
    with FakeServer(lambda number, body: Reply(words=("a",) * 1000, gap_s=0.01)) as server:

        async def leave() -> None:
            async with Client(Address.of(server.url), config_of(server.url)) as client:
                task = asyncio.create_task(client.request(Ask("p", "Hi", 8, 0), 0.0))
                while not server.seen:
                    await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(leave())
        for _ in range(500):
            if not server.running:
                break
            asyncio.run(asyncio.sleep(0.02))
        assert server.running == 0
