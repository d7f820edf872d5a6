"""Bugs planted one at a time: a cell of the grid finds each at its normal size, on the path where it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ssd_lab.check.cells import Cell, Setting
from ssd_lab.check.configurations import Configuration
from ssd_lab.check.grid import GridExtent, run_cell
from ssd_lab.check.report import ALPHA
from ssd_lab.decoding import tree_acceptance
from ssd_lab.decoding.acceptance import Outcome
from ssd_lab.decoding.random import Purpose
from ssd_lab.decoding.sampling import sample
from ssd_lab.drafting import quick_answers
from ssd_lab.kernels.torch_kernels import TorchKernels
from ssd_lab.phases import grow_tree, verification, verify
from ssd_lab.rounds.runner import StepRunner

NUM_TESTS = 20_000  # of the whole grid, for which p-values are corrected
CHAIN = Configuration("sync_chain", {"k": 3})
TREE = Configuration("sync_tree", {"tree": {"kind": "fixed", "widths": [3, 2, 1]}})
EAGLE3_TREE = Configuration("eagle3", {"mode": "sync", "tree": {"kind": "fixed", "widths": [3, 2, 1]}})
ASYNC = {"k": 3, "fan_out": {"kind": "geometric", "budget": 8}}

Rejected = set[tuple[str, str]]
Verifier = Callable[..., Outcome]


@pytest.fixture
def rejected(grid_setting: Setting) -> Callable[[Configuration], Rejected]:
    """Paths and decisions that a cell of the grid's own size (or some times that) rejects, with p-values of 5e-7."""

    def check(configuration: Configuration, times: int = 1) -> Rejected:
        draws = times * GridExtent().draws_at(8)
        result = run_cell(grid_setting, Cell(grid_setting.models.name, configuration.subject, 1.0, 8, draws))
        assert result.failed is None
        assert result.refused is None
        return {
            (tests.path, tests.event)
            for tests in result.paths
            if min(tests.p_values.values(), default=1.0) < ALPHA / NUM_TESTS
        }

    return check


def kept_rightly(p: torch.Tensor, q: torch.Tensor, coin: torch.Tensor) -> bool:
    return bool(coin * q < p)


def left_over(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p - q).clamp(min=0)


def verifier(
    kept: Callable[..., bool] = kept_rightly,
    recovered_from: Callable[..., torch.Tensor] = left_over,
    filtered: Callable[[torch.Tensor], torch.Tensor] = lambda probs: probs,
) -> Verifier:
    """Chain verification row by row and token by token, of which a part can be exchanged for a wrong one."""

    def accept_sampled(
        self: Any,
        target_probs: torch.Tensor,
        draft_tokens: torch.Tensor,
        draft_probs: torch.Tensor,
        num_drafted: torch.Tensor,
        coins: torch.Tensor,
        recovery_coins: torch.Tensor,
    ) -> Outcome:
        counts, tokens = [], []
        wanted = filtered(target_probs)
        for row, drafted in enumerate(num_drafted.tolist()):
            place = 0
            source = wanted[row, drafted]
            while place < drafted:
                token, p, q = draft_tokens[row, place], target_probs[row, place], draft_probs[row, place]
                if not kept(p[token], q[token], coins[row, place]):
                    source = recovered_from(wanted[row, place], q)
                    break
                place += 1
            counts.append(place)
            tokens.append(sample(source, recovery_coins[row, place]))
        return Outcome(torch.tensor(counts), torch.stack(tokens))

    return accept_sampled


@pytest.mark.full
def test_the_slow_verifier_without_a_bug_is_not_rejected(rejected: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TorchKernels, "accept_sampled", verifier())
    assert rejected(CHAIN) == set()


def test_acceptance_the_wrong_way_round(rejected: Any, monkeypatch: pytest.MonkeyPatch):
    """q / p instead of p / q."""
    monkeypatch.setattr(TorchKernels, "accept_sampled", verifier(kept=lambda p, q, coin: bool(coin * p < q)))
    assert ("draft", "acceptance") in rejected(CHAIN)


@pytest.mark.full
def test_a_residual_that_is_not_clipped(rejected: Any, monkeypatch: pytest.MonkeyPatch):
    """p - q with its negative entries."""
    monkeypatch.setattr(TorchKernels, "accept_sampled", verifier(recovered_from=lambda p, q: p - q))
    assert rejected(CHAIN) == {("draft", "recovery"), ("draft", "emitted token")}


@pytest.mark.extended
@pytest.mark.full
def test_recovery_from_the_target_instead_of_the_residual(rejected: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TorchKernels, "accept_sampled", verifier(recovered_from=lambda p, q: p))
    assert ("draft", "recovery") in rejected(CHAIN)


@pytest.mark.full
def test_filters_that_come_after_the_verification(rejected: Any, monkeypatch: pytest.MonkeyPatch):
    """Draft tokens are tested against the target before top-p; what is recovered is filtered."""
    right, settings = verification.target_distribution, []

    def unfiltered(logits: torch.Tensor, sampling: Any) -> torch.Tensor:
        settings[:] = [right(logits, sampling)]
        return right(logits, dataclasses.replace(sampling, any_filter=False))

    monkeypatch.setattr(verification, "target_distribution", unfiltered)
    monkeypatch.setattr(TorchKernels, "accept_sampled", verifier(filtered=lambda probs: settings[0]))
    assert ("draft", "acceptance") in rejected(CHAIN)


@pytest.mark.extended
@pytest.mark.full
def test_recovery_with_the_number_that_drew_the_draft_token(rejected: Any, monkeypatch: pytest.MonkeyPatch):
    """Each decision follows its law on average, and they hang together."""
    right = verify.uniform

    def reused(seeds: Any, places: Any, purpose: Purpose, *rest: Any) -> torch.Tensor:
        return right(seeds, places, Purpose.DRAFT if purpose is Purpose.RECOVERY else purpose, *rest)

    monkeypatch.setattr(verify, "uniform", reused)
    assert rejected(CHAIN, times=2) == {("draft", "recovery")}


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("residual", lambda p, q: p),
        pytest.param("remove", lambda q, tokens: q, marks=pytest.mark.extended),
    ],
    ids=["residual not updated", "draft distribution keeps the tried sibling"],
)
def test_siblings_verified_wrongly(rejected: Any, monkeypatch: pytest.MonkeyPatch, name: str, bug: Any):
    monkeypatch.setattr(tree_acceptance, name, bug)
    assert ("tree", "acceptance of a sibling") in rejected(TREE, times=3)


@pytest.mark.extended
@pytest.mark.full
def test_siblings_drawn_with_replacement(rejected: Any, monkeypatch: pytest.MonkeyPatch):
    def with_replacement(probs: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.stack([sample(probs, uniforms[..., i]) for i in range(uniforms.shape[-1])], -1)
        return tokens, torch.ones_like(tokens, dtype=torch.bool)

    monkeypatch.setattr(grow_tree, "draw_without_replacement", with_replacement)
    assert ("tree", "drafted sibling") in rejected(TREE)


@pytest.mark.grid(full=2)
@pytest.mark.full
@pytest.mark.parametrize("configuration", [TREE, EAGLE3_TREE], ids=["a draft's", "a head's"])
def test_siblings_verified_against_the_row_of_others(
    rejected: Any, monkeypatch: pytest.MonkeyPatch, configuration: Configuration
):
    """Every node is said to have been drawn from what the first level was drawn from."""
    original = grow_tree.Levels.__init__

    def first_row(self: Any, *given: Any) -> None:
        original(self, *given)
        self.drawn_from = torch.zeros_like(self.drawn_from)

    monkeypatch.setattr(grow_tree.Levels, "__init__", first_row)
    assert ("tree", "drafted token") in rejected(configuration)


@pytest.mark.full
def test_saguaro_sampling_verified_with_the_plain_distribution(rejected: Any, monkeypatch: pytest.MonkeyPatch):
    right = StepRunner.choose

    def dishonest(self: Any, *inputs: Any, drawing: Any, fan_out: Any, **options: Any) -> Any:
        drawn = right(self, *inputs, drawing=drawing, fan_out=fan_out, **options)
        return dataclasses.replace(drawn, probs=right(self, *inputs, **options).probs)

    monkeypatch.setattr(StepRunner, "choose", dishonest)
    found = rejected(Configuration("async_tree", {**ASYNC, "saguaro_c": 0.0}))
    assert {("hit", "drafted token"), ("jit", "drafted token")} <= found


@pytest.mark.full
def test_a_fast_guess_passed_off_as_drawn(rejected: Any, monkeypatch: pytest.MonkeyPatch):
    """What followed before, with a distribution that it was not drawn from; hits are right."""
    right = quick_answers.n_gram_guesses

    def dishonest(*inputs: Any, **options: Any) -> Any:
        guessed = right(*inputs, **options)
        vocab = 32
        return dataclasses.replace(guessed, probs=torch.full((*guessed.tokens.shape, vocab), 1 / vocab))

    monkeypatch.setattr(quick_answers, "n_gram_guesses", dishonest)
    found = rejected(Configuration("async_tree", {**ASYNC, "fallback": {"kind": "fast", "source": "ngram"}}))
    assert ("fast", "drafted token") in found
    assert {path for path, _ in found} == {"fast"}
