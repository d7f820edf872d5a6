"""Hundreds of requests, coming, going and cancelled: every block is free in the end, every text is right."""

from __future__ import annotations

import random

import pytest
from end_to_end_cases import STRATEGIES

from ssd_lab import SamplingParams

NAMES = ("async fast", "autoregressive", "sync k=4", "async jit", "prompt lookup")
CASES = [("async jit", 60), *(pytest.param(name, 200, marks=pytest.mark.full) for name in NAMES)]


@pytest.mark.grid(full=5)
@pytest.mark.parametrize(("name", "count"), CASES)
def test_a_random_workload(make_llm, name: str, count: int) -> None:
    chance = random.Random(7)
    llm = make_llm(
        **STRATEGIES[name], num_blocks=22, block_size=8, max_batch=6, max_prefill_tokens=32, max_model_len=160
    )
    engine = llm._engine
    stem = [chance.randrange(256) for _ in range(40)]  # many prompts share beginnings
    requests = []
    for _ in range(count):
        prompt = stem[: chance.randrange(0, 40)] + [chance.randrange(256) for _ in range(chance.randrange(1, 20))]
        params = SamplingParams(
            max_tokens=chance.choice([1, 2, 7, 15, 40]),
            temperature=chance.choice([0.0, 0.0, 1.0]),
            top_p=chance.choice([1.0, 0.8]),
            stop_token_ids=[chance.randrange(256) for _ in range(chance.choice([0, 30]))],
            logprobs=chance.choice([0, 0, 2]),
            ignore_eos=chance.random() < 0.5,
        )
        requests.append((prompt, params))
    sequences, cancelled, index = {}, set(), 0
    for _ in range(100_000):
        while index < count and chance.random() < 0.5:
            request_id = engine.submit(*requests[index], seed=index)
            sequences[index] = engine.sequence(request_id)
            index += 1
        engine.step()
        if chance.random() < 0.03 and sequences:
            victim = chance.choice(sorted(sequences))
            if sequences[victim].end_s is None:
                engine.cancel(sequences[victim].request_id)
                cancelled.add(victim)
        if index == count and not engine.has_work:
            break
    assert not engine.has_work
    assert engine.num_free_blocks == engine._blocks.num_usable
    assert 0 < len(cancelled) < count / 2
    assert sum(sequence.num_preemptions for sequence in sequences.values()) > 0
    solo = make_llm(strategy="autoregressive", max_model_len=160)
    checked = [i for i in range(0, count, 3) if i not in cancelled and requests[i][1].temperature == 0]
    for i in checked:
        prompt, params = requests[i]
        assert sequences[i].output_ids == solo.generate([prompt], params)[0].token_ids, f"request {i}"
    assert len(checked) > count / 10
