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


@pytest.mark.quick(
    "autoregressive",
    "sync k=4",
    "async fast",
    "async by confidence",
    "sync dynamic",
    "prompt lookup",
    "suffix tree",
    "tree dynamic",
    "cascade tree",
)
@pytest.mark.grid(most=len(STRATEGIES))
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_text_is_the_autoregressive_text(make_llm, expected, name: str) -> None:
    assert tokens(make_llm(**STRATEGIES[name], max_batch=4)) == expected


@pytest.mark.full
@pytest.mark.grid(full=5, most=6)
@pytest.mark.parametrize("batch", [1, 8, 16])
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_text_is_the_autoregressive_text_in_other_batches(make_llm, expected, name: str, batch: int) -> None:
    assert tokens(make_llm(**STRATEGIES[name], max_batch=batch)) == expected


@pytest.mark.quick("process")
@pytest.mark.parametrize("link", ["thread", "process"])
def test_wherever_the_draft_runs(make_llm, expected, link: str) -> None:
    llm = make_llm(**STRATEGIES["async jit"], draft_link=link, max_batch=3)
    result = llm.run(PROMPTS, SamplingParams(max_tokens=LENGTH))
    assert [output.token_ids for output in result.outputs] == expected
    assert result.metrics.cache_hit_rate > 0


@pytest.mark.quick(
    "chunked prefill-async jit",
    "preemption-cascade chain",
    full=[
        "preemption-async fast",
        "preemption-sync k=4",
        "chunked prefill-tree fixed",
        "chunked prefill-autoregressive",
    ],
)
@pytest.mark.grid(full=3)
@pytest.mark.parametrize(
    "name", ["autoregressive", "sync k=4", "async jit", "async fast", "tree fixed", "cascade chain"]
)
@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"max_prefill_tokens": 5}, id="chunked prefill"),
        pytest.param({"num_blocks": 24, "block_size": 8}, id="preemption"),
        pytest.param({"prefix_reuse": False}, id="no prefix reuse", marks=pytest.mark.full),
        pytest.param({"block_size": 4}, id="small blocks", marks=pytest.mark.full),
    ],
)
def test_whatever_memory_does(make_llm, expected, name: str, limits: dict) -> None:
    llm = make_llm(**STRATEGIES[name], max_batch=6, **limits)
    assert tokens(llm) == expected
    assert tokens(llm) == expected  # again, with prefixes to be found


@pytest.mark.full
@pytest.mark.parametrize("name", ["sync k=4", "async jit", "tree fixed", "tree dynamic"])
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


@pytest.mark.quick("async jit")
@pytest.mark.grid(most=4)
@pytest.mark.parametrize(
    "name", ["sync k=4", "async jit", "async fast", "prompt lookup", "tree fixed", "tree dynamic", "cascade chain"]
)
def test_sampled_text_depends_on_the_seed_and_not_on_the_batch(make_llm, name: str) -> None:
    params = [SamplingParams(max_tokens=20, temperature=0.8, seed=index) for index in range(len(PROMPTS))]
    alone = make_llm(**STRATEGIES[name], max_batch=1).generate(PROMPTS, params)
    together = make_llm(**STRATEGIES[name], max_batch=6).generate(PROMPTS, params)
    assert [o.token_ids for o in alone] == [o.token_ids for o in together]
    other = [SamplingParams(max_tokens=20, temperature=0.8, seed=100 + index) for index in range(len(PROMPTS))]
    assert [o.token_ids for o in make_llm(**STRATEGIES[name]).generate(PROMPTS, other)] != [o.token_ids for o in alone]


@pytest.mark.quick("async jit", "tree fixed")
@pytest.mark.parametrize("name", ["async jit", "tree fixed", "tree dynamic", "cascade tree"])
def test_greedy_and_sampled_requests_share_a_batch(make_llm, expected, name: str) -> None:
    params = [SamplingParams(max_tokens=LENGTH, temperature=float(i % 2), seed=i) for i in range(len(PROMPTS))]
    outputs = make_llm(**STRATEGIES[name], max_batch=6).generate(PROMPTS, params)
    assert [o.token_ids for o in outputs][::2] == expected[::2]


@pytest.mark.quick("suffix tree")
@pytest.mark.parametrize("name", ["tree top", "tree dynamic", "prompt lookup", "suffix tree"])
def test_certain_guesses_leave_sampled_text_alone(make_llm, name: str) -> None:
    """Every token is drawn with the number that autoregressive decoding uses there."""
    params = [SamplingParams(max_tokens=60, temperature=0.25, top_p=0.95, seed=i) for i in range(len(PROMPTS))]
    plain = make_llm(strategy="autoregressive").generate(PROMPTS, params)
    result = make_llm(**STRATEGIES[name], max_batch=4).run(PROMPTS, params)
    assert [o.token_ids for o in result.outputs] == [o.token_ids for o in plain]
    assert result.metrics.tokens_per_round > 1.01


@pytest.mark.quick("cascade tree")
@pytest.mark.parametrize("name", ["cascade chain", "cascade tree"])
def test_a_prefix_is_shared_only_as_far_as_the_draft_has_it(make_llm, expected, name: str) -> None:
    """A later request that goes on from an earlier one's text is drafted as if it had found nothing to share."""
    from ssd_lab import LLM

    def origins(llm: LLM, prompt: list[int]) -> list[tuple[str, list[int]]]:
        rounds = llm.run([prompt], SamplingParams(max_tokens=LENGTH, ignore_eos=True)).trace.rounds
        return [(row.origin, row.draft_tokens) for one in rounds for row in one.sequences]

    fields = {**STRATEGIES[name], "max_batch": 4, "block_size": 4}
    llm = make_llm(**fields)
    outputs = llm.generate(PROMPTS, SamplingParams(max_tokens=LENGTH))
    assert [output.token_ids for output in outputs] == expected
    for output in outputs[:3]:
        longer = [*output.prompt_ids, *output.token_ids]
        assert origins(llm, longer) == origins(make_llm(**fields, prefix_reuse=False), longer)
