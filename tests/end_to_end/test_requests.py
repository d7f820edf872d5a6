"""What a request may ask for works with every strategy."""

from __future__ import annotations

import pytest
import torch
from end_to_end_cases import PROMPTS, STRATEGIES

from ssd_lab import SamplingParams

EVERY = pytest.mark.parametrize(
    "name",
    [
        "autoregressive",
        pytest.param("sync k=4", marks=pytest.mark.full),
        pytest.param("async jit", marks=pytest.mark.full),
        "async fast",
        "prompt lookup",
    ],
)


@pytest.fixture(scope="module")
def long_text(target, draft):
    """The first prompt's greedy text, 60 tokens."""
    from ssd_lab import LLM

    with LLM(target, draft, "autoregressive", progress=False, threads=1) as llm:
        return llm.generate(PROMPTS[0], SamplingParams(max_tokens=60, ignore_eos=True))[0]


@EVERY
def test_a_stop_token_inside_an_accepted_block_ends_exactly_there(make_llm, long_text, name: str) -> None:
    llm = make_llm(**STRATEGIES[name])
    for place in range(3, 12):
        stop = long_text.token_ids[place]
        first = long_text.token_ids.index(stop)
        params = SamplingParams(max_tokens=60, ignore_eos=True, stop_token_ids=[stop])
        output = llm.generate(PROMPTS[0], params)[0]
        assert output.token_ids == long_text.token_ids[: first + 1]
        assert output.finish_reason == "stop"


@EVERY
def test_a_stop_string_ends_the_text_where_it_begins(make_llm, long_text, name: str) -> None:
    stop = long_text.text[10:13]
    params = SamplingParams(max_tokens=60, ignore_eos=True, stop=[stop])
    output = make_llm(**STRATEGIES[name]).generate(PROMPTS[0], params)[0]
    assert output.text == long_text.text[: long_text.text.index(stop)]
    assert output.finish_reason == "stop"


@EVERY
@pytest.mark.parametrize("count", [1, 2, 5])
def test_max_tokens_is_exact(make_llm, long_text, name: str, count: int) -> None:
    output = make_llm(**STRATEGIES[name]).generate(PROMPTS[0], SamplingParams(max_tokens=count, ignore_eos=True))[0]
    assert output.token_ids == long_text.token_ids[:count]
    assert output.finish_reason == "length"


@EVERY
def test_the_end_of_the_context_ends_the_text(make_llm, name: str) -> None:
    llm = make_llm(**STRATEGIES[name], max_model_len=40)
    prompt = PROMPTS[0]
    output = llm.generate(prompt, SamplingParams(max_tokens=400, ignore_eos=True))[0]
    assert len(output.prompt_ids) + len(output.token_ids) == 40
    assert output.finish_reason == "length"


@EVERY
def test_log_probabilities_are_those_of_a_plain_forward(make_llm, name: str) -> None:
    llm = make_llm(**STRATEGIES[name])
    for temperature in (0.0, 1.0):
        params = SamplingParams(max_tokens=20, logprobs=3, temperature=temperature, seed=1)
        output = llm.generate(PROMPTS[1], params)[0]
        logits = llm.score([*output.prompt_ids, *output.token_ids])[len(output.prompt_ids) - 1 : -1]
        expected = torch.log_softmax(logits, -1)
        for row, (token, entry) in enumerate(zip(output.token_ids, output.logprobs, strict=True)):
            assert entry["token_id"] == token
            assert entry["logprob"] == pytest.approx(float(expected[row, token]), abs=1e-4)
            assert list(entry["top"]) == expected[row].topk(3).indices.tolist()


@EVERY
def test_streamed_chunks_join_to_the_text(make_llm, name: str) -> None:
    llm = make_llm(**STRATEGIES[name])
    params = SamplingParams(max_tokens=50, stop=["zq"])
    chunks = list(llm.stream(PROMPTS[2], params))
    whole = llm.generate(PROMPTS[2], params)[0]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [token for chunk in chunks for token in chunk.token_ids] == whole.token_ids
    assert chunks[-1].finish_reason == whole.finish_reason
    assert len(chunks) > 3


def test_leaving_a_stream_ends_its_request(make_llm) -> None:
    llm = make_llm(**STRATEGIES["async jit"])
    for _ in llm.stream(PROMPTS[0], SamplingParams(max_tokens=200)):
        break
    assert llm.num_free_blocks == llm._engine._blocks.num_usable


def test_the_trace_tells_the_text(make_llm) -> None:
    result = make_llm(**STRATEGIES["async jit"], max_batch=6).run(PROMPTS, SamplingParams(max_tokens=30))
    for output in result.outputs:
        told = []
        for round_record in result.trace.rounds:
            for row in round_record.sequences:
                if row.request_id == output.request_id:
                    told += [*row.draft_tokens[: row.num_accepted], row.recovery_token][: row.num_emitted]
        assert told == output.token_ids


def test_a_hit_is_a_branch_of_the_previous_tree(make_llm) -> None:
    """The trace's trees explain every hit: the branch for the outcome holds the next round's draft tokens."""
    result = make_llm(**STRATEGIES["async jit"], max_batch=2).run(PROMPTS[:2], SamplingParams(max_tokens=60))
    hits = 0
    previous: dict[int, object] = {}
    for round_record in result.trace.rounds:
        for row in round_record.sequences:
            before = previous.get(row.request_id)
            if row.cache_hit is not None:
                tree, k = before.tree, len(before.draft_tokens)
                branches = [
                    tree.tokens[start + 1 : start + 1 + k]
                    for start in range(k, len(tree.tokens), k + 1)
                    if tree.parents[start] == before.num_accepted - 1 and tree.tokens[start] == before.recovery_token
                ]
                assert bool(branches) == row.cache_hit
                if row.cache_hit:
                    hits += 1
                    assert branches == [row.draft_tokens]
            previous[row.request_id] = row
    assert hits > 5


def test_without_recording_the_numbers_are_the_same(make_llm) -> None:
    runs = [
        make_llm(**STRATEGIES["async jit"], record=record).run(PROMPTS, SamplingParams(max_tokens=30))
        for record in (True, False)
    ]
    assert not runs[1].trace.rounds
    for name in ("tokens_per_round", "acceptance_rate", "cache_hit_rate", "num_output_tokens"):
        assert getattr(runs[0].metrics, name) == getattr(runs[1].metrics, name)


@pytest.mark.quick("autoregressive")
@pytest.mark.grid(one_of=3)
@EVERY
def test_a_stop_string_may_be_a_special_tokens_text(make_llm, target, name: str) -> None:
    """The token shows in no text; the request ends with it all the same, in a stream, too."""
    llm = make_llm(**STRATEGIES[name])
    tokenizer = target.tokenizer
    stops = {text: token_id for token_id, text in tokenizer.special_texts.items()}
    long = SamplingParams(max_tokens=200, temperature=2.0, seed=4, ignore_eos=True)
    whole = llm.generate(PROMPTS[0], long)[0]
    text = next(text for text, token_id in stops.items() if token_id in whole.token_ids)
    place = whole.token_ids.index(stops[text])
    stopped = llm.generate(PROMPTS[0], long.model_copy(update={"stop": [text]}))[0]
    assert stopped.finish_reason == "stop" and stopped.token_ids == whole.token_ids[: place + 1]
    assert stopped.text == tokenizer.decode(whole.token_ids[:place])
    chunks = list(llm.stream(PROMPTS[0], long.model_copy(update={"stop": [text]})))
    assert "".join(chunk.text for chunk in chunks) == stopped.text
