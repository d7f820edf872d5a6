"""What a benchmark measures, held against the run's own outputs and against itself."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from ssd_lab.bench import session, support
from ssd_lab.bench.config import BenchConfig, cell_key
from ssd_lab.bench.measure import run_benchmark, run_in_turns
from ssd_lab.bench.result import BenchResult
from ssd_lab.errors import ConfigError, DatasetError, ModelLoadError
from ssd_lab.llm import LLM


def changed(config: BenchConfig, **fields: Any) -> BenchConfig:
    return BenchConfig.model_validate(config.model_dump() | fields)


def test_every_request_has_the_references_lengths(results: tuple[BenchResult, BenchResult]):
    for result in results:
        (dataset,) = result.datasets.values()
        assert dataset.num_cut == 2
        for repeat in dataset.repeats:
            assert [(r.num_prompt_tokens, r.num_output_tokens) for r in repeat.requests] == [(24, 8), (24, 8)]
            assert {r.finish_reason for r in repeat.requests} == {"length"}
            assert repeat.num_prefill_tokens == 2 * 23
            assert repeat.totals.emitted == repeat.num_output_tokens == 16


def test_times_fit_into_each_other(results: tuple[BenchResult, BenchResult]):
    for result in results:
        for repeat in result.datasets["gsm8k"].repeats:
            assert repeat.prefill_s > 0 and repeat.decode_s > 0 and repeat.prefill_s + repeat.decode_s <= repeat.wall_s
            first, second = repeat.requests
            assert 0 < first.first_token_s < first.latency_s
            assert second.queue_s >= first.latency_s  # batch 1: it waited for the whole of the first
            assert first.latency_s + second.latency_s <= repeat.wall_s


def test_estimates_are_what_the_repeats_say(results: tuple[BenchResult, BenchResult]):
    dataset = results[1].datasets["gsm8k"]
    found = dataset.estimates
    speeds = [16 / repeat.decode_s for repeat in dataset.repeats]
    assert found["decode_tokens_per_second"].mean == pytest.approx(sum(speeds) / 2)
    assert found["decode_tokens_per_second"].low < min(speeds) < max(speeds) < found["decode_tokens_per_second"].high
    assert found["total_tokens_per_second"].mean < found["decode_tokens_per_second"].mean
    rounds = sum(request.rounds for repeat in dataset.repeats for request in repeat.requests)
    accepted = sum(request.accepted for repeat in dataset.repeats for request in repeat.requests)
    assert found["tokens_per_round"].mean == pytest.approx(1 + accepted / rounds)
    assert 0 < found["acceptance_rate"].mean < 1
    assert "cache_hit_rate" in found and "cache_hit_rate" not in results[0].datasets["gsm8k"].estimates
    assert "acceptance_rate" not in results[0].datasets["gsm8k"].estimates
    assert "tokens_per_second_per_gpu" not in found  # there is none here


def test_rates_are_the_same_without_a_trace_but_have_no_interval(
    tiny_config: BenchConfig, results: tuple[BenchResult, BenchResult]
):
    bare = run_benchmark(changed(tiny_config, record=False, repeats=1)).datasets["gsm8k"].estimates
    full = results[1].datasets["gsm8k"].estimates
    for name in ("tokens_per_round", "acceptance_rate", "cache_hit_rate"):
        assert bare[name].mean == pytest.approx(full[name].mean)
        assert bare[name].low is None
    assert bare["decode_tokens_per_second"].low is None  # one repeat


def test_a_result_is_the_same_after_storing_it_as_json(results: tuple[BenchResult, BenchResult]):
    for result in results:
        assert BenchResult.from_dict(json.loads(json.dumps(result.as_dict()))) == result
    with pytest.raises(ConfigError, match="measure again"):
        BenchResult.from_dict({**results[0].as_dict(), "version": 0})


def test_the_surroundings_are_in_the_result(results: tuple[BenchResult, BenchResult], tiny_pair: Any):
    found = results[1].environment
    assert found["hardware"]["cores"] >= 1
    assert {"python", "torch", "ssd_lab"} <= found["versions"].keys()
    assert found["git"] is None or (len(found["git"]["commit"]) == 40 and isinstance(found["git"]["dirty"], bool))
    assert found["run"]["device"] == "cpu" and found["run"]["dtype"] == "float32" and found["run"]["threads"] == 1
    assert found["run"]["target"]["digest"] != found["run"]["draft"]["digest"]


def test_greedy_texts_are_equal_and_sampled_repeats_are_not(
    tiny_config: BenchConfig, results: tuple[BenchResult, BenchResult]
):
    assert results[0].digests == results[1].digests
    hot = changed(tiny_config, temperature=1.0, strategy="autoregressive", strategy_fields={}, draft=None)
    first, again = run_in_turns([hot, hot])
    repeats = [[request.digest for request in repeat.requests] for repeat in first.datasets["gsm8k"].repeats]
    assert repeats[0] != repeats[1]  # each repeat draws anew ...
    assert repeats == [[r.digest for r in repeat.requests] for repeat in again.datasets["gsm8k"].repeats]  # ... alike


def test_data_sets_are_measured_apart_and_random_prompts_have_their_length(tiny_config: BenchConfig):
    two = run_benchmark(changed(tiny_config, datasets=["gsm8k", "humaneval"], repeats=1, num_sequences=1))
    assert list(two.datasets) == ["gsm8k", "humaneval"]
    drawn = run_benchmark(changed(tiny_config, random=True, repeats=1, input_len=19)).datasets["random"]
    assert [request.num_prompt_tokens for request in drawn.repeats[0].requests] == [19, 19]
    assert drawn.num_cut == 0


def test_precision_asks_for_more_repeats_and_max_repeats_ends_it(tiny_config: BenchConfig):
    exact = changed(tiny_config, precision=1e-9, max_repeats=4, num_sequences=1, output_len=4)
    assert len(run_benchmark(exact).datasets["gsm8k"].repeats) == 4
    loose = changed(tiny_config, precision=0.999, max_repeats=30, num_sequences=1, output_len=4)
    assert 2 <= len(run_benchmark(loose).datasets["gsm8k"].repeats) < 30


def test_max_steps_ends_each_repeat(tiny_config: BenchConfig):
    result = run_benchmark(changed(tiny_config, max_steps=3, repeats=1))
    (repeat,) = result.datasets["gsm8k"].repeats
    assert repeat.totals.rounds == 3
    assert repeat.requests[0].latency_s is None and repeat.requests[1].first_token_s is None
    assert any("3 engine steps" in note for note in result.notes)


def test_live_states_count_up_to_the_end(tiny_config: BenchConfig):
    states = []
    run_benchmark(changed(tiny_config, repeats=1), on_live=states.append)
    assert states[-1].num_tokens == states[-1].expected_tokens == 16
    assert states[-1].tokens_per_second > 0 and 0 < states[-1].acceptance_rate < 1
    assert (states[-1].dataset, states[-1].repeat) == ("gsm8k", 0)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"num_gpus": 2}, ConfigError, "2 GPUs were asked for"),
        ({"strategy": "eagle3", "strategy_fields": {"k": 2}, "draft": None}, ConfigError, "no EAGLE3 head is known"),
        ({"strategy": "eagle3", "strategy_fields": {"head": "some/head"}}, ModelLoadError, "not on this machine"),
        ({"strategy_fields": {"saguaro_c": 1.5}}, ConfigError, "saguaro_c"),
        ({"strategy_fields": {"kk": 2}}, ConfigError, "did you mean 'k'"),
        ({"strategy": "asynctree"}, ConfigError, "did you mean 'async_tree'"),
        ({"draft_temperature": 0.5, "strategy": "autoregressive", "strategy_fields": {}}, ConfigError, "--dtemp out"),
        ({"draft": None}, ConfigError, "needs a draft model"),
        ({"output_len": 5000}, ConfigError, "lower --output_len, or an --input_len that cuts prompts"),
        ({"max_model_len": 20}, ConfigError, "max_model_len"),
        ({"num_sequences": 10**6}, DatasetError, "at most"),
        ({"datasets": ["gsm9k"]}, DatasetError, "gsm8k"),
        ({"datasets": ["example"], "num_sequences": 99}, ConfigError, "ask for fewer"),
    ],
)
def test_what_cannot_be_had_is_refused_in_words(
    tiny_config: BenchConfig, fields: dict[str, Any], error: type[Exception], words: str
):
    with pytest.raises(error) as caught:
        run_benchmark(changed(tiny_config, **fields))
    assert words in str(caught.value)


def test_a_draft_temperature_equal_to_the_targets_changes_nothing(tiny_config: BenchConfig):
    warm = changed(tiny_config, temperature=0.5, repeats=1)
    assert run_benchmark(warm).digests == run_benchmark(changed(warm, draft_temperature=0.5)).digests


def test_another_draft_temperature_is_accepted_and_matters(tiny_config: BenchConfig):
    warm = changed(tiny_config, temperature=0.8, repeats=1)
    assert run_benchmark(warm).digests != run_benchmark(changed(warm, draft_temperature=0.2)).digests


def test_cell_keys_tell_configs_apart_and_survive_storing():
    config = BenchConfig(strategy_fields={"k": 2, "f": 3})
    assert cell_key(config) == cell_key(BenchConfig.model_validate_json(config.model_dump_json()))
    assert cell_key(config) == cell_key(BenchConfig(strategy_fields={"f": 3, "k": 2}))
    others = [{"seed": 1}, {"strategy_fields": {"k": 3}}, {"temperature": 0.5}, {"datasets": ("c4",)}]
    assert len({cell_key(config), *(cell_key(changed(config, **fields)) for fields in others)}) == 5


@pytest.mark.full
def test_several_gpus_are_given_to_the_engine(tiny_config: BenchConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here two processes of the CPU stand for them."""
    made: list[Any] = []

    def on_cpus(*models: Any, gpus: int, **fields: Any) -> Any:
        made.append(gpus)
        return LLM(*models, **fields, placement={"target": ["cpu"] * gpus})

    monkeypatch.setattr(session, "LLM", on_cpus)
    cuda = SimpleNamespace(device_count=lambda: 2, is_available=lambda: False)
    monkeypatch.setattr(support, "torch", SimpleNamespace(cuda=cuda))
    wanted = changed(tiny_config, num_gpus=2, strategy="autoregressive", strategy_fields={}, repeats=1)
    result = run_benchmark(wanted)
    assert made == [2] and len(result.datasets["gsm8k"].repeats) == 1
