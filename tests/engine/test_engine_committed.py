"""A committed round stays: its text, who ended in it, and its record survive whatever the next one does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from replay_graphs import Backends

import ssd_lab
from ssd_lab import LLM, SamplingParams
from ssd_lab.drafting.resources import Resources
from ssd_lab.engine.engine import Engine
from ssd_lab.errors import CacheCapacityError, ProposerError, SsdLabError
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.results import Output
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.strategies import Proposer, StrategyConfig
from ssd_lab.trace import Trace

PROMPTS = [[1, 2, 3], [4, 5]]
ROUNDS = 9  # of one token each, that are committed
OPTIONS: dict[str, Any] = {"progress": False, "threads": 1, "num_blocks": 40, "max_model_len": 100}


class Failing(Proposer):
    """Proposes nothing, and raises in call number ROUNDS of `observe` or the one after so many of `propose`."""

    def __init__(self, strategy: FailingStrategy) -> None:
        self.needs_outcomes, self._method, self._error = strategy.needs_outcomes, strategy.method, strategy.error
        self._proposed = self._observed = 0

    def propose(self, sequences: Any, rows: Any) -> Proposal:
        self._proposed += 1
        if self._method == "propose" and self._proposed == ROUNDS + 1:
            raise ERRORS[self._error]("no ideas left")
        return Proposal.empty(len(sequences))

    def observe(self, sequences: Any, features: Any) -> None:
        self._observed += 1
        if self._method == "observe" and self._observed == ROUNDS:
            raise ERRORS[self._error]("no ideas left")


class FailingStrategy(StrategyConfig):
    """Builds the proposer above."""

    strategy_name: ClassVar[str] = "failing"
    method: str
    needs_outcomes: bool = True
    error: str = "an error"

    @property
    def lookahead(self) -> int:
        return 1

    def build(self, resources: Resources) -> Proposer:
        return Failing(self)


ERRORS: dict[str, Callable[[str], BaseException]] = {
    "an error": ZeroDivisionError,
    "no room": CacheCapacityError,
    "Ctrl-C": KeyboardInterrupt,
}
OBSERVE = FailingStrategy(method="observe")
LAUNCH = FailingStrategy(method="propose")  # the next round, once the tokens of this one are known
FOLLOW = FailingStrategy(method="propose", needs_outcomes=False)  # the next round, before they are


@pytest.fixture(scope="module")
def target(tiny_pair: Any) -> LoadedModel:
    torch.set_num_threads(1)
    return load_model(tiny_pair.target, dtype="float32")


@pytest.fixture(scope="module")
def text(target: LoadedModel) -> Callable[[int, int], Output]:
    """What a prompt is answered with in so many tokens."""

    def generated(number: int, tokens: int) -> Output:
        with LLM(target, strategy="autoregressive", **OPTIONS) as llm:
            return llm.generate([PROMPTS[number]], SamplingParams(max_tokens=tokens, ignore_eos=True))[0]

    return generated


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds run ahead."""
    Backends.installed(monkeypatch)


def check(outputs: Any, trace: Trace, text: Any, reasons: list[str], rounds: int = ROUNDS) -> None:
    """All that was committed is there, as text and as records."""
    expected = [text(number, rounds) for number in range(2)]
    assert [output.token_ids for output in outputs] == [output.token_ids for output in expected]
    for number, output in enumerate(outputs):  # a stop token is none of the text
        assert output.text == text(number, rounds - (output.finish_reason == "stop")).text
    assert [output.finish_reason for output in outputs] == reasons
    assert [request.finish_reason for request in trace.requests] == reasons
    assert len(trace.rounds) == rounds
    assert all(len(record.sequences) == 2 and record.end_s >= record.start_s for record in trace.rounds)


def failed(target: LoadedModel, strategy: StrategyConfig, params: Any, kind: type[SsdLabError]) -> SsdLabError:
    with LLM(target, strategy=strategy, **OPTIONS) as llm:
        where = r"in \w+\.py, line \d+: " if kind is ProposerError else ""  # of what is not one of ours
        with pytest.raises(kind, match=f"{where}no ideas left") as caught:
            llm.run(PROMPTS, params)
        assert llm.num_free_blocks == OPTIONS["num_blocks"] - 1
    return caught.value


def by_length(first: int = ROUNDS) -> list[SamplingParams]:
    """The first request ends in this round, the other goes on."""
    return [SamplingParams(max_tokens=tokens, ignore_eos=True) for tokens in (first, 40)]


def by_stop_token(text: Any) -> list[SamplingParams]:
    """The first request ends in the last committed round, which the host learns when the next is under way."""
    last = text(0, ROUNDS).token_ids
    assert last[-1] not in last[:-1]
    return [SamplingParams(max_tokens=40, ignore_eos=True, stop_token_ids=own) for own in ([last[-1]], [])]


def test_an_observer_that_raises(target: LoadedModel, text: Any) -> None:
    error = failed(target, OBSERVE, by_length(), ProposerError)
    check(error.outputs, error.trace, text, ["length", "cancelled"])


def test_an_observer_that_raises_while_rounds_run_ahead(target: LoadedModel, text: Any, graphs: None) -> None:
    error = failed(target, OBSERVE, by_length(), ProposerError)
    check(error.outputs, error.trace, text, ["length", "cancelled"])


def test_a_launch_that_fails(target: LoadedModel, text: Any, graphs: None) -> None:
    error = failed(target, LAUNCH, by_length(40), ProposerError)
    check(error.outputs, error.trace, text, ["cancelled", "cancelled"])


def test_a_launch_ahead_of_the_outcome_that_fails(target: LoadedModel, text: Any, graphs: None) -> None:
    error = failed(target, FOLLOW, by_stop_token(text), ProposerError)
    check(error.outputs, error.trace, text, ["stop", "cancelled"])


@pytest.mark.parametrize("strategy", [LAUNCH, FOLLOW], ids=["known", "ahead"])
def test_a_graph_that_does_not_fit(target: LoadedModel, text: Any, graphs: None, strategy: FailingStrategy) -> None:
    strategy = strategy.model_copy(update={"error": "no room"})
    error = failed(target, strategy, by_length(40), CacheCapacityError)
    check(error.outputs, error.trace, text, ["cancelled", "cancelled"])


@pytest.mark.parametrize("strategy", [OBSERVE, LAUNCH, FOLLOW], ids=["observe", "launch", "ahead"])
def test_ctrl_c(target: LoadedModel, text: Any, graphs: None, strategy: FailingStrategy) -> None:
    strategy = strategy.model_copy(update={"error": "Ctrl-C"})
    params = by_length() if strategy.method == "observe" else by_length(40)
    with LLM(target, strategy=strategy, **OPTIONS) as llm:
        result = llm.run(PROMPTS, params)
    first = "length" if strategy.method == "observe" else "cancelled"
    check(result.outputs, result.trace, text, [first, "cancelled"])


def test_run_carries_them_too(target: LoadedModel, text: Any) -> None:
    with pytest.raises(ProposerError, match=r"in \w+\.py, line \d+: no ideas left") as caught:
        ssd_lab.run(PROMPTS, strategy=OBSERVE, target=target, max_tokens=ROUNDS, progress=False, threads=1)
    check(caught.value.outputs, caught.value.trace, text, ["length", "length"])


def test_one_requests_error_carries_the_others_and_the_trace(target: LoadedModel, text: Any) -> None:
    """The target makes no numbers of one prompt."""
    decoder = target.decoder
    plain, poison = decoder.forward, 250
    assert poison not in text(0, ROUNDS).token_ids

    def forward(step: Any, cache: Any, **named: Any) -> torch.Tensor:
        out = plain(step, cache, **named)
        return out.masked_fill((step.token_ids == poison).unsqueeze(-1), float("nan"))

    decoder.forward = forward  # type: ignore[method-assign]
    try:
        with LLM(target, strategy="autoregressive", **OPTIONS) as llm, pytest.raises(SsdLabError) as caught:
            llm.generate([PROMPTS[0], [5, poison]], SamplingParams(max_tokens=ROUNDS, ignore_eos=True))
    finally:
        del decoder.forward
    error = caught.value
    assert [output.finish_reason for output in error.outputs] == ["length", "error"]
    assert error.outputs[0].token_ids == text(0, ROUNDS).token_ids
    assert len(error.trace.rounds) == ROUNDS and len(error.trace.requests) == 2


def test_the_engine_goes_on_after_the_error_if_its_owner_does(target: LoadedModel, text: Any, graphs: None) -> None:
    """Nothing is computed twice or left out: the step that raised had committed its round."""
    with LLM(target, strategy=OBSERVE, **OPTIONS) as llm:
        engine: Engine = llm._engine
        sequences = [
            engine.sequence(engine.submit(prompt, own, seed=0))
            for prompt, own in zip(PROMPTS, by_length(40), strict=True)
        ]
        raised = 0
        while engine.has_work:
            try:
                engine.step()
            except ProposerError:
                raised += 1
        assert raised == 1
        assert [sequence.output_ids for sequence in sequences] == [text(number, 40).token_ids for number in range(2)]
