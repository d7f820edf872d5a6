"""The numbers at /metrics, under vLLM's names, and the identities between them and those of the answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import ssd_lab

MODEL = "bundled:async_tree"
QUESTION = [{"role": "user", "content": "What is bread made of?"}]


def scraped(url: str) -> dict[str, float]:
    """Every sample by its name and the labels that tell it from others of one model."""
    text = httpx.get(f"{url}/metrics", timeout=60).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("model_name", "engine")}
            if sample.labels.get("model_name", MODEL) == MODEL:
                found[sample.name + (str(sorted(labels.items())) if labels else "")] = sample.value
    return found


@pytest.fixture(scope="module")
def answers_and_change(client, url):
    """Answers with different ends, and what the numbers grew by."""
    before = scraped(url)
    answers = [
        client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=t, seed=5, max_tokens=n, stop=stop)
        for t, n, stop in [(0, 20, None), (0.8, 33, None), (0, 40, ["."]), (0, 1, None)]
    ]
    after = scraped(url)
    return answers, {name: value - before.get(name, 0) for name, value in after.items()}


def summed(answers, field):
    return sum(answer.metrics["speculative_decoding"][field] for answer in answers)


def test_sums_over_answers_are_the_counters(answers_and_change):
    answers, change = answers_and_change
    assert change["vllm:spec_decode_num_drafts_total"] == summed(answers, "num_spec_steps") > 0
    assert change["vllm:spec_decode_num_draft_tokens_total"] == summed(answers, "num_draft_tokens")
    assert change["vllm:spec_decode_num_accepted_tokens_total"] == summed(answers, "num_accepted_draft_tokens")
    assert change["vllm:generation_tokens_total"] == sum(answer.usage.completion_tokens for answer in answers)
    assert change["vllm:prompt_tokens_total"] == sum(answer.usage.prompt_tokens for answer in answers)
    assert change["vllm:request_success_total[('finished_reason', 'length')]"] >= 2


def test_every_decided_token_is_in_a_text_or_past_its_end(answers_and_change):
    _, change = answers_and_change
    decided = change["vllm:spec_decode_num_accepted_tokens_total"] + change["ssd_lab:text_rounds_total"]
    assert decided == change["vllm:generation_tokens_total"] + change["ssd_lab:tokens_past_end_total"]
    assert change["ssd_lab:tokens_past_end_total"] > 0  # the request for one token drafted more


def test_rounds_of_the_batch_and_their_time_count(answers_and_change):
    _, change = answers_and_change
    assert 0 < change["ssd_lab:rounds_total"] <= change["ssd_lab:text_rounds_total"]
    assert change["ssd_lab:decode_seconds_total"] > 0 and change["ssd_lab:prefill_seconds_total"] > 0


def test_positions_and_paths_sum_up(answers_and_change):
    _, change = answers_and_change

    def total(name):
        return sum(value for key, value in change.items() if key.startswith(name + "["))

    accepted = change["vllm:spec_decode_num_accepted_tokens_total"]
    assert total("vllm:spec_decode_num_accepted_tokens_per_pos_total") == accepted
    assert total("ssd_lab:accepted_tokens_by_path_total") == accepted
    assert total("ssd_lab:draft_tokens_by_path_total") == change["vllm:spec_decode_num_draft_tokens_total"]
    assert total("ssd_lab:drafts_by_path_total") == change["ssd_lab:text_rounds_total"]
    assert total("ssd_lab:cache_lookups_total") > 0


def test_an_answers_own_numbers_agree_among_themselves(answers_and_change):
    for answer in answers_and_change[0]:
        told = answer.metrics["speculative_decoding"]
        histogram = told["acceptance_histogram"]
        assert len(histogram) == told["num_spec_tokens"] + 1 and sum(histogram) == told["num_spec_steps"]
        assert sum(place * count for place, count in enumerate(histogram)) == told["num_accepted_draft_tokens"]
        by_length = told["acceptance_histogram_by_draft_length"]
        assert sum(map(sum, by_length.values())) == told["num_spec_steps"]
        assert sum(int(length) * sum(counts) for length, counts in by_length.items()) == told["num_draft_tokens"]
        assert told["mean_acceptance_length"] == 1 + told["num_accepted_draft_tokens"] / told["num_spec_steps"]


@pytest.mark.parametrize(
    "name",
    ["time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
     "request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
     "request_inference_time_seconds", "request_time_per_output_token_seconds", "request_generation_tokens"],
)  # fmt: skip
def test_latencies_are_counted(answers_and_change, name):
    assert answers_and_change[1][f"vllm:{name}_count"] > 0


def test_the_state_of_an_idle_server(url):
    idle = scraped(url)
    assert idle["vllm:num_requests_running"] == idle["vllm:num_requests_waiting"] == 0
    assert idle["vllm:kv_cache_usage_perc"] == 0 and idle["ssd_lab:kv_blocks"] == idle["ssd_lab:kv_blocks_free"]
    assert idle["ssd_lab:draft_lost"] == 0


def test_the_grafana_board_asks_for_numbers_that_there_are(url):
    board = json.loads((Path(ssd_lab.__file__).parents[1] / "docs" / "assets" / "grafana.json").read_text("utf-8"))
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"(?:vllm|ssd_lab):\w+", target["expr"])
    }
    told = set(re.findall(r"^((?:vllm|ssd_lab):\w+)", httpx.get(f"{url}/metrics", timeout=60).text, re.MULTILINE))
    assert len(asked) > 10 and asked <= told
