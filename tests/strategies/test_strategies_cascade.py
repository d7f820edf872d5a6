"""One strategy drafts where it can, another the rest: exact, routed by the text, and the draft misses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from machine_threads import THREADS
from power import found_wrong

from ssd_lab import LLM, SamplingParams
from ssd_lab.check import Extent, check
from ssd_lab.drafting.composition import replace_rows
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.engine.round_records import KeptRound
from ssd_lab.errors import ConfigError
from ssd_lab.execution.host_copy import HostCopy
from ssd_lab.links.link import InlineLink
from ssd_lab.links.messages import NO_OUTCOME, PrefillMessage, RoundMessage
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.recorded_tree import RecordedTree
from ssd_lab.rounds.token_tree import TokenTree
from ssd_lab.strategies import Context, SequenceStrategy
from ssd_lab.strategies.cascade import Cascade, CascadeProposer
from ssd_lab.strategies.registry import registry
from ssd_lab.strategies.wrapper import PausingProposer

PROMPTS = ["Hello there", "The quick brown fox jumps", "def add(a, b):", "1 + 2 ="]
VOCAB = 259


class Now(SequenceStrategy):
    """Guesses now and then: three tokens for some lengths of the text, nothing for others."""

    strategy_name: ClassVar[str] = "now_and_then"

    @property
    def lookahead(self) -> int:
        return 3

    def draft(self, context: Context) -> Sequence[int]:
        length = len(context.token_ids)
        return [] if length * 7919 % 11 < 4 else [token % VOCAB for token in (length, length + 1, length + 2)]


class Knows(SequenceStrategy):
    """Knows the text, and says the next five tokens at some lengths of it."""

    strategy_name: ClassVar[str] = "knows"
    text: tuple[int, ...]

    @property
    def lookahead(self) -> int:
        return 5

    def draft(self, context: Context) -> Sequence[int]:
        length = len(context.token_ids)
        return [] if length * 7919 % 11 < 4 else self.text[length : length + 5]


@pytest.fixture(scope="module")
def pair(tiny_pair) -> tuple[LoadedModel, LoadedModel]:
    return load_model(tiny_pair.target, dtype="float32"), load_model(tiny_pair.draft, dtype="float32")


def opened(pair, strategy: Any, **fields: Any) -> LLM:
    return LLM(*pair, strategy, progress=False, threads=THREADS, draft_link="inline", num_blocks=200, **fields)


def texts(llm: LLM, **params: Any) -> list[list[int]]:
    with llm:
        outputs = llm.generate(PROMPTS, SamplingParams(max_tokens=30, ignore_eos=True, **params))
    return [output.token_ids for output in outputs]


SECONDS = [
    {"strategy": "sync_chain", "k": 4},
    {"strategy": "async_tree", "k": 3, "f": 2},
    {"strategy": "async_tree", "k": 3, "f": 2, "fallback": "fast"},
]


@pytest.mark.quick("4-async")
@pytest.mark.parametrize("second", SECONDS, ids=["sync", "async", "fast"])
@pytest.mark.parametrize("batch", [1, 4])
def test_greedy_text_is_the_autoregressive_text(pair, second: dict, batch: int) -> None:
    expected = texts(opened(pair, "autoregressive", max_batch=1))
    assert texts(opened(pair, Cascade(first=Now(), second=second), max_batch=batch)) == expected


@pytest.mark.quick("async")
@pytest.mark.parametrize("second", SECONDS, ids=["sync", "async", "fast"])
def test_sampled_text_does_not_depend_on_the_batch(pair, second: dict) -> None:
    cascade = Cascade(first=Now(), second=second)
    alone, together = (
        texts(opened(pair, cascade, max_batch=batch, prefix_reuse=False), temperature=0.9, seed=3) for batch in (1, 4)
    )
    assert alone == together


@pytest.mark.full
def test_each_path_samples_from_the_target(tiny_pair) -> None:
    extent = Extent(num_prompts=12, batches=(), temperatures=(1.0,), draws=600)
    report = check(
        [Cascade(first=Now(), second={"strategy": "sync_chain", "k": 3})], target=tiny_pair.target,
        draft=tiny_pair.draft, dtype="float32", extent=extent, progress=False, threads=THREADS,
    )  # fmt: skip
    assert {path.path for path in report.paths} == {"custom", "draft"}
    assert found_wrong(report) == set()


def test_the_trace_says_who_drafted(pair) -> None:
    with opened(pair, Cascade(first=Now(), second={"strategy": "sync_chain", "k": 4})) as llm:
        rounds = llm.run(PROMPTS, SamplingParams(max_tokens=30, ignore_eos=True)).trace.rounds
    for record in rounds:
        for row in record.sequences:
            drafts = row.position * 7919 % 11 >= 4
            assert (row.origin, len(row.draft_tokens)) == (("custom", 3) if drafts else ("draft", 4))
    mixed = [{row.origin for row in record.sequences} for record in rounds]
    assert {"custom", "draft"} in mixed


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list:
    """Everything sent to the draft worker."""
    sent: list = []
    post, ask = InlineLink.post, InlineLink.ask
    monkeypatch.setattr(InlineLink, "post", lambda self, m: (sent.append(m), post(self, m))[1])
    monkeypatch.setattr(InlineLink, "ask", lambda self, m: (sent.append(m), ask(self, m))[1])
    return sent


def test_the_draft_sees_every_committed_token_once_and_drafts_as_if_it_had_drafted_all_along(pair, messages) -> None:
    """Its tokens after rounds that others drafted are the tokens it drafts for that text from scratch."""
    k = 4
    with opened(pair, Cascade(first=Now(), second={"strategy": "sync_chain", "k": k}), max_batch=1) as llm:
        result = llm.run(PROMPTS, SamplingParams(max_tokens=40, ignore_eos=True))
    gaps = [m for m in messages if isinstance(m, PrefillMessage) and any(part.start for part in m.parts)]
    assert len(gaps) > 5
    drafted = [row for r in result.trace.rounds for row in r.sequences if row.origin == "draft"]
    with opened((pair[1], None), "autoregressive", max_batch=1) as alone:
        for row in drafted[::4]:
            output = result.outputs[row.request_id]
            text = [*output.prompt_ids, *output.token_ids][: row.position]
            again = alone.generate([text], SamplingParams(max_tokens=k, ignore_eos=True))[0]
            assert again.token_ids == row.draft_tokens


def test_a_draft_that_drafts_every_round_is_never_shown_a_token_twice(pair, messages) -> None:
    texts(opened(pair, "sync_chain", max_batch=2))
    assert {p.start for message in messages if isinstance(message, PrefillMessage) for p in message.parts} == {0}


def test_outcomes_of_anothers_draft_are_not_looked_up(pair, messages) -> None:
    """What was prepared for an outcome of the draft's own tokens must not answer for one of the n-gram's."""
    with opened(pair, Cascade(first=Now(), second={"strategy": "async_tree", "k": 3, "f": 2}), max_batch=1) as llm:
        result = llm.run(PROMPTS[:1], SamplingParams(max_tokens=60, ignore_eos=True))
    origins = {row.position: row.origin for r in result.trace.rounds for row in r.sequences}
    rounds = [m for m in messages if isinstance(m, RoundMessage)]
    before = dict(zip(list(origins)[1:], origins.values(), strict=False))  # who drafted the round before this position
    assert {int(m.num_accepted) == NO_OUTCOME for m in rounds} == {True, False}
    for message in rounds:
        drafter = before.get(int(message.state.tensor[0]), "custom")
        assert (int(message.num_accepted) == NO_OUTCOME) == (drafter == "custom")


def test_accepted_tokens_of_anothers_draft_are_no_outcome_either(pair, messages) -> None:
    """Longer drafts than the draft's own, all accepted: it is told of none of them."""
    params = SamplingParams(max_tokens=60, ignore_eos=True)
    with opened(pair, "autoregressive") as llm:
        plain = llm.generate(PROMPTS[:1], params)[0]
    first = Knows(text=(*plain.prompt_ids, *plain.token_ids))
    with opened(pair, Cascade(first=first, second={"strategy": "async_tree", "k": 3, "f": 2}), max_batch=1) as llm:
        result = llm.run(PROMPTS[:1], params)
    assert result.outputs[0].token_ids == plain.token_ids and "degraded" not in result.trace.meta
    rows = [row for r in result.trace.rounds for row in r.sequences]
    assert max(row.num_accepted for row in rows if row.origin == "custom") == 5
    before = {two.position: one for one, two in pairwise(rows)}
    for message in (m for m in messages if isinstance(m, RoundMessage) and int(m.state.tensor[0]) in before):
        told, last = int(message.num_accepted), before[int(message.state.tensor[0])]
        assert told == (NO_OUTCOME if last.origin == "custom" else last.num_accepted)


def test_what_was_foretold_of_a_parts_lookups_is_in_the_trace(pair) -> None:
    second = {"strategy": "async_tree", "k": 3, "fan_out": {"kind": "adaptive", "budget": 8}}
    with opened(pair, Cascade(first=Now(), second=second), max_batch=4) as llm:
        result = llm.run(PROMPTS, SamplingParams(max_tokens=40, ignore_eos=True))
    rows = [row for record in result.trace.rounds for row in record.sequences]
    looked_up = [row for row in rows if row.cache_hit is not None]
    assert looked_up and all((row.predicted_hit is None) == (row.cache_hit is None) for row in rows)
    mean = sum(row.predicted_hit for row in looked_up) / len(looked_up)
    assert result.metrics.predicted_cache_hit_rate == pytest.approx(mean)


@pytest.mark.full
def test_a_tree_is_recorded_with_the_round_that_it_was_built_beside(pair) -> None:
    """And not with a later one, which another part drafted: its first nodes are what that round verified."""
    second = {"strategy": "async_tree", "k": 2, "f": 2}  # shorter than the first part's drafts
    with opened(pair, Cascade(first=Now(), second=second), max_batch=1) as llm:
        result = llm.run(PROMPTS, SamplingParams(max_tokens=60, ignore_eos=True))
    rows = [row for record in result.trace.rounds for row in record.sequences]
    assert {row.origin for row in rows if row.tree is not None} == {"hit", "jit"}
    for row in rows:
        if row.tree is not None:
            assert row.tree.tokens[:2] == row.draft_tokens
            assert row.recovery_rank is not None and row.fan_out == [2, 2, 2]
    skipped = [(a.origin, b.origin) for a, b in pairwise(rows) if a.request_id == b.request_id]
    assert ("jit", "custom") in skipped or ("hit", "custom") in skipped


def test_what_the_draft_has_not_seen_is_not_counted_as_cached(pair) -> None:
    """What may be shared with other requests: blocks that both caches hold."""
    with opened(pair, Cascade(first=Now(), second={"strategy": "sync_chain", "k": 4}), max_batch=1) as llm:
        engine = llm._engine
        worker = engine.proposer._parts[1]
        request = engine.submit(list(range(20)), SamplingParams(max_tokens=60, ignore_eos=True), seed=1)
        sequence = engine.sequence(request)
        seen = []
        while engine.has_work:
            before = len(sequence.token_ids)
            engine.step()
            if sequence.finish_reason is not None:
                break
            own = before * 7919 % 11 < 4
            lag = len(sequence.token_ids) - 2 - worker.cached_tokens(sequence)
            assert lag >= 0 and (lag == 0) >= own
            seen.append(lag)
        assert max(seen) > 3 and 0 in seen


def test_a_draft_model_is_asked_for_only_where_a_part_has_one(pair) -> None:
    look = {"strategy": "prompt_lookup", "k": 4}
    without = Cascade(first=look, second={"strategy": "suffix_tree", "k": 4})
    assert not without.uses_draft and Cascade(first=look).uses_draft
    with LLM(pair[0], None, without, progress=False, num_blocks=200) as llm:
        assert llm.generate(PROMPTS[:1], SamplingParams(max_tokens=8))[0].token_ids
    with pytest.raises(ConfigError, match="needs a draft model"):
        LLM(pair[0], None, Cascade(first=look), progress=False)


def test_a_part_may_have_fields_of_its_own_and_survives_a_round_trip() -> None:
    cascade = Cascade(first={"strategy": "suffix_tree", "k": 9}, second="async_tree", least=3)
    assert (cascade.first.k, cascade.lookahead, cascade.overlaps) == (9, 9, True)
    assert Cascade(**cascade.model_dump()) == cascade
    assert Cascade.model_validate_json(cascade.model_dump_json()) == cascade
    assert Cascade.model_json_schema()["properties"]["first"]["description"]
    assert (Cascade().first.strategy_name, Cascade().second.strategy_name) == ("prompt_lookup", "sync_chain")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"first": "promt_lookup"}, "did you mean 'prompt_lookup'"),
        ({"first": {"strategy": "prompt_lookup", "n": 3}}, "unknown field 'n'"),
        ({"first": {"k": 3}}, "'strategy' and its fields"),
        ({"first": 7}, "'strategy' and its fields"),
        ({"first": "autoregressive"}, "never drafts more than 0 tokens"),
    ],
)
def test_a_wrong_part_says_what_is_allowed(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.config(Cascade, fields)


def test_replaced_rows_are_the_others_and_the_rest_is_as_it_was() -> None:
    base = Proposal(torch.tensor([[1, 2, 3], [4, 0, 0], [0, 0, 0]]), [3, 1, 0], None, ["custom", "custom", "none"],
                    [None] * 3, torch.ones(3, 3))  # fmt: skip
    probs = torch.softmax(torch.randn(2, 2, 6, generator=torch.Generator().manual_seed(0)), -1)
    other = Proposal(torch.tensor([[5, 1], [2, 2]]), [2, 1], probs, ["hit", "jit"], [True, False],
                     torch.tensor([[0.5, 0.25], [0.125, 0.0625]]), predicted_hits=[0.75, 0.5])  # fmt: skip
    made = replace_rows(base, [2, 1], other)
    assert made.predicted_hits == [None, 0.5, 0.75]
    assert made.tokens.tolist() == [[1, 2, 3], [2, 2, 0], [5, 1, 0]]
    assert (made.num_drafted, made.origins) == ([3, 1, 2], ["custom", "jit", "hit"])
    assert made.cache_hits == [None, False, True]
    assert made.token_probs.tolist() == [[1.0] * 3, [0.125, 0.0625, 1.0], [0.5, 0.25, 1.0]]
    assert torch.equal(made.probs[0], torch.eye(6)[[1, 2, 3]])
    assert torch.equal(made.probs[[2, 1], :2], probs)
    assert made.problem(3, 3, 6) is None


def test_chains_become_trees_beside_trees() -> None:
    base = Proposal(torch.tensor([[1, 2, 3], [4, 0, 0]]), [3, 1], None, ["custom", "custom"], [None] * 2)
    probs = torch.softmax(torch.randn(1, 2, 6, generator=torch.Generator().manual_seed(0)), -1)
    tree = TokenTree(
        torch.tensor([[-1, -1, 0, 0]]), torch.tensor([[True, True, True, False]]), torch.tensor([[0, 0, 1, 1]]),
        torch.tensor([False]), 2, 2,
    )  # fmt: skip
    other = Proposal(torch.tensor([[5, 1, 2, 4]]), [4], probs, ["tree"], [None], tree=tree)
    made = replace_rows(base, [1], other)
    assert made.tokens.tolist() == [[1, 2, 3, 0], [5, 1, 2, 4]]
    assert made.tree is not None
    assert made.tree.parents.tolist() == [[-1, 0, 1, -1], [-1, -1, 0, 0]]
    assert made.tree.valid.tolist() == [[True, True, True, False], [True, True, True, False]]
    assert made.tree.drawn_from[1].tolist() == [0, 0, 1, 1]
    assert made.tree.drawn_from.max() < made.probs.shape[1]  # also of a chain longer than the tree has distributions
    assert made.tree.certain.tolist() == [True, False]
    assert (made.tree.depth, made.tree.width) == (3, 2)
    assert torch.equal(made.probs[1], probs[0])
    assert made.problem(2, 3, 6, nodes=4) is None


def test_trees_of_both_parts_are_kept() -> None:
    """Of a row that both drafted for, the second one's counts: its draft was verified."""
    trees = [RecordedTree(ids, HostCopy()) for ids in ([0, 1], [1])]
    parts = [replace(Proposal.empty(rows), previous_trees=[tree]) for rows, tree in zip((2, 1), trees, strict=True)]
    made = replace_rows(parts[0], [1], parts[1])
    assert made.previous_trees == trees
    kept = KeptRound([0, 1], [], [], [], None, None, [], None, [], trees=made.previous_trees)
    assert [kept.tree_of(number) for number in (0, 1, 2)] == [*trees, None]


def test_suffixes_longer_than_the_tree_beside_it_are_verified(pair) -> None:
    """At temperature 1, with rows of either part in a round."""
    first, second = (
        {"strategy": "suffix_tree", "k": 9},
        {"strategy": "sync_tree", "tree": {"kind": "fixed", "widths": [2, 2]}},
    )
    prompts = [[5, 5, 5, 9, 9], [5, 5, 5, 9, 9, 9, 9], [1, 2, 3, 4]]
    params = [SamplingParams(max_tokens=40, temperature=1.0, seed=100 + i, ignore_eos=True) for i in (4, 5, 0)]
    texts = []
    for batch in (1, 3):
        with LLM(*pair, Cascade(first=first, second=second), max_batch=batch, progress=False, num_blocks=200) as llm:
            texts.append([output.token_ids for output in llm.generate(prompts, params)])
    assert texts[0] == texts[1]


def test_whoever_stands_for_other_proposers_hands_on_all_that_they_are_told() -> None:
    told = {name for name, member in vars(Proposer).items() if callable(member) and not name.startswith("_")}
    told -= {"for_hits", "start_ahead"}  # is asked only of a proposer that looks up, as a cascade does not
    for kind in (CascadeProposer, PausingProposer):
        hears = {name for name in told if getattr(kind, name) is not getattr(Proposer, name)}
        assert {"prefill", "propose", "observe", "suspend", "forget", "report_losses"} < hears == told
