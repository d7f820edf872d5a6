"""At temperature 0 every strategy writes the autoregressive text, token for token, however it is run."""

from __future__ import annotations

import pytest
from end_to_end_cases import PROMPTS, STRATEGIES

from ssd_lab import SamplingParams

LENGTH = 40


@pytest.fixture(scope="module")
def expected(target, draft) -> list[list[int]]:
    from ssd_lab import LLM

    with LLM(target, draft, "autoregressive", max_batch=1, progress=False, threads=1) as llm:
        return [output.token_ids for output in llm.generate(PROMPTS, SamplingParams(max_tokens=LENGTH))]


def tokens(llm, prompts=PROMPTS, **params) -> list[list[int]]:
    return [output.token_ids for output in llm.generate(prompts, SamplingParams(**{"max_tokens": LENGTH, **params}))]


@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_text_is_the_autoregressive_text(make_llm, expected, name: str, batch: int) -> None:
    assert tokens(make_llm(**STRATEGIES[name], max_batch=batch)) == expected


@pytest.mark.parametrize("link", ["thread", "process"])
def test_wherever_the_draft_runs(make_llm, expected, link: str) -> None:
    llm = make_llm(**STRATEGIES["async jit"], draft_link=link, max_batch=3)
    result = llm.run(PROMPTS, SamplingParams(max_tokens=LENGTH))
    assert [output.token_ids for output in result.outputs] == expected
    assert result.metrics.cache_hit_rate > 0


@pytest.mark.parametrize("name", ["autoregressive", "sync k=4", "async jit", "async fast"])
@pytest.mark.parametrize(
    "limits",
    [{"max_prefill_tokens": 5}, {"num_blocks": 24, "block_size": 8}, {"prefix_reuse": False}, {"block_size": 4}],
    ids=["chunked prefill", "preemption", "no prefix reuse", "small blocks"],
)
def test_whatever_memory_does(make_llm, expected, name: str, limits: dict) -> None:
    llm = make_llm(**STRATEGIES[name], max_batch=6, **limits)
    assert tokens(llm) == expected
    assert tokens(llm) == expected  # again, with prefixes to be found


@pytest.mark.parametrize("name", ["sync k=4", "async jit"])
def test_bfloat16_is_exact_as_well(tiny_pair, name: str) -> None:
    from ssd_lab import LLM

    texts = []
    for strategy, batch in (("autoregressive", 1), (name, 1), (name, 6)):
        fields = STRATEGIES.get(strategy, {"strategy": strategy})
        with LLM(
            tiny_pair.target,
            tiny_pair.draft,
            dtype="bfloat16",
            max_batch=batch,
            draft_link="inline",
            threads=1,
            progress=False,
            **fields,
        ) as llm:
            texts.append(tokens(llm))
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("name", ["sync k=4", "async jit", "async fast", "prompt lookup"])
def test_sampled_text_depends_on_the_seed_and_not_on_the_batch(make_llm, name: str) -> None:
    params = [SamplingParams(max_tokens=20, temperature=0.8, seed=index) for index in range(len(PROMPTS))]
    alone = make_llm(**STRATEGIES[name], max_batch=1).generate(PROMPTS, params)
    together = make_llm(**STRATEGIES[name], max_batch=6).generate(PROMPTS, params)
    assert [o.token_ids for o in alone] == [o.token_ids for o in together]
    other = [SamplingParams(max_tokens=20, temperature=0.8, seed=100 + index) for index in range(len(PROMPTS))]
    assert [o.token_ids for o in make_llm(**STRATEGIES[name]).generate(PROMPTS, other)] != [o.token_ids for o in alone]


def test_greedy_and_sampled_requests_share_a_batch(make_llm, expected) -> None:
    params = [SamplingParams(max_tokens=LENGTH, temperature=float(i % 2), seed=i) for i in range(len(PROMPTS))]
    outputs = make_llm(**STRATEGIES["async jit"], max_batch=6).generate(PROMPTS, params)
    assert [o.token_ids for o in outputs][::2] == expected[::2]
