"""The strategy drafts what the head's definition says, in every batch and memory, and the text is the target's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from eagle3_cases import LENGTH, MODES, PROMPTS, autoregressive, eagle, params

from ssd_lab import LLM, SamplingParams
from ssd_lab.drafting.eagle3.proposer import EagleProposer
from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.rounds.block_manager import BlockManager


@pytest.fixture(scope="module")
def expected(counting: Any) -> list[list[int]]:
    return autoregressive(counting.target)


@pytest.mark.quick("async jit-4-part", full=["sync-1-part"])
@pytest.mark.grid(full=3)
@pytest.mark.parametrize("head", [pytest.param("whole", marks=pytest.mark.full), "part"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("mode", MODES)
def test_greedy_text_is_the_targets_and_drafts_are_the_heads(
    counting: Any, expected: list[list[int]], mode: str, batch: int, head: str
) -> None:
    folder = getattr(counting, head)
    with eagle(counting.target, folder, mode, max_batch=batch) as llm:
        result = llm.run(PROMPTS, params())
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
    assert [output.token_ids for output in result.outputs] == expected
    counts = counting.twin(folder).check(result, 0.0)
    assert result.metrics.tokens_per_round > 1.7
    paths = {"sync": {"draft"}, "async jit": {"hit", "jit"}, "async fast": {"hit", "fast", "jit"}}[mode]
    assert set(counts) == paths | {"none"}  # none: the prompt of one token
    assert counts["none"] == 1


@pytest.mark.quick("async jit-1.0")
@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("mode", MODES)
def test_sampled_drafts_have_the_heads_probabilities(counting: Any, mode: str, temperature: float) -> None:
    with eagle(counting.target, counting.part, mode, max_batch=4) as llm:
        counts = counting.twin(counting.part).check(llm.run(PROMPTS, params(temperature)), temperature)
    assert sum(counts.values()) > 20


LIMITS: dict[str, dict[str, Any]] = {
    "chunked prefill": {"max_prefill_tokens": 3},
    "preemption": {"num_blocks": 24, "block_size": 4},
    "no prefix reuse": {"prefix_reuse": False, "block_size": 4},
    "small blocks": {"block_size": 4},
    "blocks of one": {"block_size": 1},
}


@pytest.mark.quick(full=["preemption-async jit"])
@pytest.mark.grid(full=3)
@pytest.mark.parametrize("mode", ["sync", "async jit"])
@pytest.mark.parametrize("limits", LIMITS)
def test_whatever_memory_does_drafts_are_the_heads(counting: Any, mode: str, limits: str) -> None:
    temperature = 0.8
    with eagle(counting.target, counting.part, mode, max_batch=1, prefix_reuse=False) as llm:
        alone = [output.token_ids for output in llm.generate(PROMPTS, params(temperature))]
    with eagle(counting.target, counting.part, mode, max_batch=6, **LIMITS[limits]) as llm:
        for _ in range(2):  # the second time with prefixes to be found
            result = llm.run(PROMPTS, params(temperature))
            assert [output.token_ids for output in result.outputs] == alone
            counting.twin(counting.part).check(result, temperature)
        # and a conversation goes on: the text so far is the next prompt
        longer = [[*output.prompt_ids, *output.token_ids[:17]] for output in result.outputs]
        result = llm.run(longer, params(temperature, length=10))
        counting.twin(counting.part).check(result, temperature)
        assert llm.num_free_blocks == llm._engine._blocks.num_usable


def reused_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each admission found."""
    found: list[int] = []
    original = BlockManager.match_prefix

    def spy(self: BlockManager, token_ids: Any) -> Any:
        blocks, key = original(self, token_ids)
        found.append(len(blocks) * self.block_size)
        return blocks, key

    monkeypatch.setattr(BlockManager, "match_prefix", spy)
    return found


@pytest.mark.parametrize(("tokens", "reused"), [(8, 4), (9, 4), (10, 8), (13, 8), (14, 12)])
def test_prefixes_are_reused_up_to_a_token_that_is_computed_anew(
    counting: Any, monkeypatch: pytest.MonkeyPatch, tokens: int, reused: int
) -> None:
    """The head needs the feature of the last token but one, and the token behind each block that it shares."""
    found = reused_tokens(monkeypatch)
    prompt = [4, *range(10, 9 + tokens)]
    one = SamplingParams(max_tokens=12, ignore_eos=True)
    with eagle(counting.target, counting.whole, block_size=4) as llm:
        first = llm.run([prompt], one)
        second = llm.run([prompt], one)
    assert found == [0, reused]
    drafts = [[row.draft_tokens for r in result.trace.rounds for row in r.sequences] for result in (first, second)]
    assert drafts[0] == drafts[1]
    counting.twin(counting.whole).check(second, 0.0)


def test_a_block_is_shared_only_with_the_same_token_behind_it(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head's last row of a block holds the token behind it, so its K/V is another one where that differs."""
    found = reused_tokens(monkeypatch)
    one = SamplingParams(max_tokens=12, ignore_eos=True)
    common = [4, *range(10, 17)]
    with eagle(counting.target, counting.whole, block_size=4) as llm:
        llm.run([[*common, 17, 18]], one)
        other = llm.run([[*common, 40, 41]], one)
    assert found == [0, 4]
    counting.twin(counting.whole).check(other, 0.0)


def test_without_that_token_in_its_name_a_shared_block_spoils_drafts(
    counting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = BlockManager.__init__
    monkeypatch.setattr(
        BlockManager, "__init__", lambda self, *given, **named: original(self, *given, **{**named, "tokens_after": 0})
    )
    one = SamplingParams(max_tokens=12, ignore_eos=True)
    common = [4, *range(10, 17)]
    with eagle(counting.target, counting.whole, block_size=4) as llm:
        llm.run([[*common, 17, 18]], one)
        with pytest.raises(AssertionError):
            counting.twin(counting.whole).check(llm.run([[*common, 40, 41]], one), 0.0)


def last_only(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: only the last accepted position meets its feature, the others keep K/V of the head's own states."""
    original = EagleProposer.observe

    def observe(self: EagleProposer, sequences: Any, features: torch.Tensor) -> None:
        original(self, sequences, features)
        for sequence in sequences:
            new = sequence.memory.popitem()
            own = DeviceTensor.of(new[1].own[None, -1:])
            sequence.memory[new[0]] = type(new[1])(own, 0, 1)

    monkeypatch.setattr(EagleProposer, "observe", observe)


def one_place_on(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: the feature of the next position."""
    original = EagleProposer.observe
    monkeypatch.setattr(
        EagleProposer, "observe", lambda self, sequences, features: original(self, sequences, features.roll(-1, 1))
    )


def another_layer(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: layers read in another order."""
    original = EagleProposer.__init__
    monkeypatch.setattr(
        EagleProposer,
        "__init__",
        lambda self, link, layers, k, **named: original(self, link, layers[::-1], k, **named),
    )


@pytest.mark.quick("async jit-one_place_on", "sync-last_only", "sync-another_layer")
@pytest.mark.parametrize("plant", [last_only, one_place_on, another_layer])
@pytest.mark.parametrize("mode", ["sync", "async jit"])
def test_the_twin_notices_features_in_wrong_places(
    counting: Any, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch, mode: str, plant: Any
) -> None:
    plant(counting, monkeypatch)
    with eagle(counting.target, counting.whole, mode) as llm:
        result = llm.run(PROMPTS, params())
    assert [output.token_ids for output in result.outputs] == expected  # a bad draft costs speed, never the text
    with pytest.raises(AssertionError):
        counting.twin(counting.whole).check(result, 0.0)


def test_the_heads_cache_holds_what_the_targets_features_give(counting: Any) -> None:
    """After many rounds, K/V of every committed position equals that of a prefill of the whole text, bit for bit."""
    layers = []
    with eagle(counting.target, counting.whole, prefix_reuse=False, block_size=4) as llm:
        request = llm._engine.submit(PROMPTS[0], SamplingParams(max_tokens=40, ignore_eos=True), seed=0)
        sequence = llm._engine.sequence(request)
        while len(sequence.token_ids) < 32:
            llm._engine.step()
        text, blocks = list(sequence.token_ids), list(sequence.blocks)
        rounds = len(llm._engine.take_trace().rounds)
        known = len(text) - 1 - (sequence.last_accepted + 1)  # the last round's features come with the next proposal
        assert known - len(PROMPTS[0]) > 1.5 * rounds  # so most rows were drafted on the head's own states first
        cache = llm._engine.proposer.link._worker._drafter.runner.cache
        layers.append(
            [kv.view(cache.num_blocks, 4, *kv.shape[1:])[blocks].flatten(0, 1)[:known] for kv in cache.layers]
        )
    with eagle(counting.target, counting.whole, prefix_reuse=False, block_size=4) as llm:
        request = llm._engine.submit(text, SamplingParams(max_tokens=40, ignore_eos=True), seed=0)
        sequence = llm._engine.sequence(request)
        llm._engine.step()
        blocks = list(sequence.blocks)
        cache = llm._engine.proposer.link._worker._drafter.runner.cache
        layers.append(
            [kv.view(cache.num_blocks, 4, *kv.shape[1:])[blocks].flatten(0, 1)[:known] for kv in cache.layers]
        )
    for drafted, prefilled in zip(*layers, strict=True):
        assert torch.equal(drafted, prefilled)


@pytest.mark.full
@pytest.mark.parametrize("mode", MODES)
def test_sampled_text_depends_on_the_seed_and_not_on_the_batch(counting: Any, mode: str) -> None:
    texts = []
    for batch in (1, 6):
        with eagle(counting.target, counting.part, mode, max_batch=batch, block_size=4) as llm:
            texts.append([output.token_ids for output in llm.generate(PROMPTS, params(1.0, top_p=0.9))])
    assert texts[0] == texts[1]


def test_greedy_and_sampled_requests_share_a_batch(counting: Any, expected: list[list[int]]) -> None:
    mixed = [p if i % 2 else q for i, (p, q) in enumerate(zip(params(1.0), params(0.0), strict=True))]
    for mode in MODES:
        with eagle(counting.target, counting.part, mode, max_batch=6) as llm:
            outputs = llm.generate(PROMPTS, mixed)
        assert [output.token_ids for output in outputs][::2] == expected[::2]


def test_a_cancelled_request_leaves_nothing_behind(counting: Any, expected: list[list[int]]) -> None:
    with eagle(counting.target, counting.whole, "async jit", max_batch=4) as llm:
        for _ in llm.stream(PROMPTS[0], SamplingParams(max_tokens=40, ignore_eos=True)):
            break
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
        stopped = llm.run(PROMPTS, params(), on_step=lambda steps, totals: steps < 3)
        assert {output.finish_reason for output in stopped.outputs} == {"cancelled"}
        after = llm.run(PROMPTS, params())
    assert [output.token_ids for output in after.outputs] == expected
    counting.twin(counting.whole).check(after, 0.0)


@pytest.mark.full
def test_a_thread_of_its_own(counting: Any, expected: list[list[int]]) -> None:
    with eagle(counting.target, counting.whole, "async jit", draft_link="thread", max_batch=3) as llm:
        result = llm.run(PROMPTS, params())
    assert [output.token_ids for output in result.outputs] == expected
    counting.twin(counting.whole).check(result, 0.0)


def test_without_recording_the_numbers_are_the_same(counting: Any) -> None:
    runs = []
    for record in (True, False):
        with eagle(counting.target, counting.whole, "async jit", record=record) as llm:
            runs.append(llm.run(PROMPTS, params()).metrics)
    assert runs[0].tokens_per_round == runs[1].tokens_per_round
    assert runs[0].cache_hit_rate == runs[1].cache_hit_rate > 0.3


def test_hits_are_branches_that_the_head_can_name(counting: Any) -> None:
    nameable = set(counting.twin(counting.part)._head.vocabulary.target_ids.tolist())
    with eagle(counting.target, counting.part, "async jit", f=3) as llm:
        result = llm.run(PROMPTS, params(1.0))
    recovered = [row for r in result.trace.rounds for row in r.sequences]
    branches = {token for row in recovered if row.tree is not None for token in row.tree.tokens}
    assert branches <= nameable and any(row.recovery_token not in nameable for row in recovered)


def test_a_target_without_numbers_ends_its_own_request_only(counting: Any) -> None:
    """NaN features of one prompt spoil neither the head's blocks nor its neighbours."""
    decoder = counting.target.decoder
    original, poison = decoder.forward, 63

    def forward(step: Any, cache: Any, *, features: Any = None) -> torch.Tensor:
        out = original(step, cache, features=features)
        bad = (step.token_ids == poison).unsqueeze(-1)
        for layer in features or {}:
            features[layer] = features[layer].masked_fill(bad, float("nan"))
        return out.masked_fill(bad, float("nan"))

    prompts = [[4, 10, 11, 12], [5, 20, poison], [6, 9, 12, 15, 18, 21]]
    one = SamplingParams(max_tokens=20, ignore_eos=True)
    with LLM(counting.target, None, "autoregressive", progress=False, threads=1) as llm:
        plain = [output.token_ids for output in llm.generate(prompts, one)]
    decoder.forward = forward
    try:
        with eagle(counting.target, counting.whole, block_size=4, num_blocks=40) as llm:
            ids = [llm._engine.submit(prompt, one, seed=0) for prompt in prompts]
            sequences = [llm._engine.sequence(number) for number in ids]
            while llm._engine.has_work:
                llm._engine.step()
            assert [sequence.finish_reason for sequence in sequences] == ["length", "error", "length"]
            assert [sequences[i].output_ids for i in (0, 2)] == [plain[0], plain[2]]
            assert "degraded" not in llm._engine.take_trace().meta
            again = llm.run([prompts[0]] * 4, one)  # over the blocks that were used before
            assert [output.token_ids for output in again.outputs] == [plain[0]] * 4
            assert "degraded" not in again.trace.meta
    finally:
        del decoder.forward


def test_the_end_of_the_context_ends_the_text(counting: Any) -> None:
    for mode in MODES:
        with eagle(counting.target, counting.whole, mode) as llm:
            output = llm.generate(PROMPTS[1], SamplingParams(max_tokens=400, ignore_eos=True))[0]
        assert len(output.prompt_ids) + len(output.token_ids) == 64 and output.finish_reason == "length"
        assert output.token_ids[:LENGTH] == autoregressive(counting.target, [PROMPTS[1]])[0]
