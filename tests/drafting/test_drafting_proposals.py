"""A proposer of one's own that returns nonsense is told what was wrong with it, and nothing stays taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch

from ssd_lab import LLM, SamplingParams
from ssd_lab.drafting.resources import Resources
from ssd_lab.errors import ConfigError, ProposerError
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.strategies import Proposer, StrategyConfig

VOCAB, LOOKAHEAD = 259, 2
Change = Callable[[Proposal], Any]


def good(batch: int) -> Proposal:
    """Guesses the tokens 5, 6, drawn from all tokens alike."""
    return Proposal(
        tokens=torch.tensor([[5, 6]] * batch),
        num_drafted=[2] * batch,
        probs=torch.full((batch, 2, VOCAB), 1 / VOCAB),
        origins=["custom"] * batch,
        cache_hits=[None] * batch,
    )


def with_fields(**fields: Any) -> Change:
    return lambda proposal: dataclasses.replace(proposal, **fields)


class Changing(Proposer):
    """Proposes well, but for one change from the second round on."""

    def __init__(self, change: Change, in_prefill: bool) -> None:
        self._change, self._in_prefill, self._rounds = change, in_prefill, 0

    def prefill(self, chunks: Any) -> None:
        if self._in_prefill:
            self._change(good(1))

    def propose(self, sequences: Any, rows: Any) -> Proposal:
        self._rounds += 1
        return self._change(good(len(rows))) if self._rounds > 1 else good(len(rows))


class ChangingStrategy(StrategyConfig):
    """Builds the proposer above."""

    strategy_name: ClassVar[str] = "changing"
    change: str
    in_prefill: bool = False

    @property
    def lookahead(self) -> int:
        return LOOKAHEAD

    def build(self, resources: Resources) -> Proposer:
        return Changing(CHANGES[self.change][0], self.in_prefill)


@pytest.fixture(scope="module")
def target(tiny_pair: Any) -> LoadedModel:
    torch.set_num_threads(1)
    return load_model(tiny_pair.target, dtype="float32")


def raising(_: Proposal) -> Proposal:
    raise ZeroDivisionError("no ideas left")


CHANGES: dict[str, tuple[Change, str]] = {
    "none": (lambda _: None, "returned NoneType; return a Proposal"),
    "raising": (raising, r"raised ZeroDivisionError in test_drafting_proposals\.py, line \d+: no ideas left"),
    "a row too few": (with_fields(tokens=torch.tensor([[5, 6]])), "tokens has 1 rows for 2 sequences"),
    "flat": (with_fields(tokens=torch.tensor([5, 6])), r"int64 tensor \[sequences, k\]"),
    "floats": (with_fields(tokens=torch.tensor([[5.0, 6.0]] * 2)), r"int64 tensor \[sequences, k\]"),
    "too long": (with_fields(tokens=torch.tensor([[5, 6, 7]] * 2)), "3 tokens a sequence, and the strategy declared"),
    "above": (with_fields(tokens=torch.tensor([[5, VOCAB]] * 2)), "ids outside 0..258"),
    "below": (with_fields(tokens=torch.tensor([[5, -1]] * 2)), "ids outside 0..258"),
    "a count too few": (with_fields(num_drafted=[2]), "num_drafted has 1 entries for 2 sequences"),
    "count too large": (with_fields(num_drafted=[2, 3]), r"num_drafted is \[2, 3\], and tokens holds 2"),
    "count negative": (with_fields(num_drafted=[2, -1]), r"num_drafted is \[2, -1\]"),
    "an origin too few": (with_fields(origins=["custom"]), "origins has 1 entries"),
    "no hits": (with_fields(cache_hits=[]), "cache_hits has 0 entries"),
    "probs too short": (
        with_fields(probs=torch.full((2, 1, VOCAB), 1 / VOCAB)),
        r"probs has shape \[2, 1, 259\]; \[sequences, k, vocab\] is \[2, 2, 259\]",
    ),
    "nothing": (lambda proposal: proposal, ""),
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("change", sorted(CHANGES.keys() - {"nothing"}))
def test_a_wrong_proposal_is_an_error_that_says_what_is_wrong(target: LoadedModel, change: str, temperature: float):
    params = SamplingParams(max_tokens=20, temperature=temperature, seed=1, ignore_eos=True)
    with LLM(target, strategy=ChangingStrategy(change=change), progress=False, threads=1, num_blocks=20) as llm:
        with pytest.raises(ProposerError, match=CHANGES[change][1]) as caught:
            llm.generate([[1, 2, 3], [4]], params)
        assert [output.finish_reason for output in caught.value.outputs] == ["cancelled"] * 2
        assert all(output.token_ids for output in caught.value.outputs)
        assert llm.num_free_blocks == 19


def test_raising_while_the_prompt_is_computed_is_the_same_error(target: LoadedModel):
    strategy = ChangingStrategy(change="raising", in_prefill=True)
    with LLM(target, strategy=strategy, progress=False, threads=1, num_blocks=20) as llm:
        with pytest.raises(
            ProposerError, match=r"raised ZeroDivisionError in test_drafting_proposals\.py, line \d+: no ideas left"
        ):
            llm.generate([[1, 2, 3]], SamplingParams(max_tokens=4))
        assert llm.num_free_blocks == 19


def test_a_proposal_may_be_good(target: LoadedModel):
    strategy = ChangingStrategy(change="nothing")
    with LLM(target, strategy=strategy, progress=False, threads=1) as llm:
        assert len(llm.generate([[1, 2, 3]], SamplingParams(max_tokens=9, ignore_eos=True))[0].token_ids) == 9


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1])
def test_a_seed_that_does_not_fit_is_refused_before_anything_runs(target: LoadedModel, seed: int):
    with LLM(target, strategy="autoregressive", progress=False, threads=1) as llm:
        with pytest.raises(ConfigError, match="does not fit in 64 bits"):
            llm.generate([[1], [2]], [SamplingParams(max_tokens=4), SamplingParams(max_tokens=4, seed=seed)])
        assert not llm._engine.has_work


def test_a_closed_engine_takes_no_requests(target: LoadedModel):
    llm = LLM(target, strategy="autoregressive", progress=False, threads=1)
    llm.close()
    llm.close()
    with pytest.raises(ConfigError, match="the engine is closed"):
        llm.generate([[1, 2]])


def test_a_run_records_nothing_of_the_run_before(tiny_pair: Any):
    """The draft's last tree is reported with the next round, which may be another run's."""
    with LLM(
        tiny_pair.target, tiny_pair.draft, "async_tree", k=2, f=2, draft_link="inline", dtype="float32",
        progress=False, threads=1,
    ) as llm:  # fmt: skip
        for _ in range(2):
            trace = llm.run([[1, 2, 3]], SamplingParams(max_tokens=10)).trace
            spans = [span for record in trace.rounds for span in record.activities]
            assert min(span.start_s for span in spans) >= 0
            assert max(span.end_s for span in spans) <= trace.rounds[-1].end_s
