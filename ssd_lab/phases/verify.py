"""Verify chains: one target forward over the last committed token and the k draft tokens, then acceptance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ssd_lab.decoding.acceptance import Outcome
from ssd_lab.decoding.decision import GreedyVerification, advanced_rows, decided_integers
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.execution.structure import Tensors
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.phases.verification import (
    Decision,
    Scores,
    Verification,
    VerifyInputs,
    VerifyOptions,
    VerifyPhase,
    draft_numbers,
)
from ssd_lab.rounds.alternatives import Alternatives
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import Bounds, RowTensors, causal_step
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.verified import RoundProbabilities, Verified

Decided = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]
"""The fields `integers`, `numbers` and `advanced` of a `Decision`."""


@dataclass(frozen=True)
class VerifyChainPhase(VerifyPhase):
    """Over chains of k draft tokens."""

    name: ClassVar[str] = "verify"

    def step(self, runner: StepRunner, inputs: VerifyInputs) -> StepInput:
        """k + 1 rows, each seeing all before it."""
        rows, tokens = inputs.rows, torch.cat([inputs.rows.last_tokens[:, None], inputs.draft_tokens], 1)
        longest = self.context - tokens.shape[1]
        return causal_step(runner.kernels, tokens, rows.lengths - 1, rows.tables, runner.block_size, longest=longest)

    def decide(
        self,
        runner: StepRunner,
        inputs: VerifyInputs,
        step: StepInput,
        scores: Scores,
        features: torch.Tensor | None,
    ) -> Decision:
        """The longest accepted prefix (`decoding/acceptance.py`)."""
        details = _likeliest(scores.known, inputs, self.options.details) if self.options.details else ()
        decide = self._greedy if scores.probs is None else self._sampled
        integers, numbers, advanced = decide(runner, inputs, scores)
        return Decision(
            integers,
            numbers if self.options.record else None,
            details,
            scores.logits,
            advanced if self.options.advance else None,
            features,
        )

    def _greedy(self, runner: StepRunner, inputs: VerifyInputs, scores: Scores) -> Decided:
        """In two launches where there are kernels: everything that follows waits for it."""
        rows, drafted, kernels = inputs.rows, inputs.draft_tokens, runner.decoder.kernels
        outcome: Outcome = kernels.accept_greedy(scores.choices, drafted, rows.num_drafted)
        verified = GreedyVerification(
            *(outcome, scores.logits, scores.choices, scores.choice_probs),
            *(drafted, inputs.token_probs, rows.lengths, rows.last_tokens),
        )
        return kernels.greedy_decision(verified)

    def _sampled(self, runner: StepRunner, inputs: VerifyInputs, scores: Scores) -> Decided:
        rows, drafted, probs = inputs.rows, inputs.draft_tokens, scores.known
        k = drafted.shape[1]
        places = rows.lengths[:, None] + torch.arange(k + 1, device=drafted.device)
        seeds = rows.sampling.seeds[:, None]
        coins = uniform(seeds, places[:, :k], Purpose.ACCEPT)
        recovery_coins = uniform(seeds, places, Purpose.RECOVERY)
        outcome: Outcome = runner.decoder.kernels.accept_sampled(
            probs, drafted, inputs.probs, rows.num_drafted, coins, recovery_coins
        )
        accepted, recovery = outcome.num_accepted, outcome.recovery_token
        every = torch.arange(len(rows), device=drafted.device)[:, None]
        numbers = None
        if self.options.record:
            of_drafted = probs[:, :-1].gather(-1, drafted.unsqueeze(-1)).squeeze(-1)
            of_recovery = probs[every, accepted[:, None], recovery[:, None]]
            drawn = recovery_coins.gather(1, accepted[:, None])
            parts = (of_drafted, of_recovery, inputs.token_probs, coins, drawn)
            numbers = torch.cat([part.float() for part in parts if part is not None], 1)
        decided = decided_integers(accepted, recovery, scores.choice_probs, draft_numbers(inputs))
        fed = torch.cat([rows.last_tokens[:, None], drafted], 1)
        return (
            torch.cat([decided, drafted], 1),
            numbers,
            advanced_rows(rows.lengths, fed, accepted, accepted, recovery),
        )


def _likeliest(probs: torch.Tensor, inputs: VerifyInputs, count: int) -> Tensors:
    """The fields of `Alternatives`."""
    tokens = probs.topk(min(count, probs.shape[-1]), -1).indices
    if inputs.probs is None or not inputs.probs.shape[1]:
        given = probs.gather(-1, tokens)
        return tokens, given, torch.full_like(given, -1.0)
    drafts = [inputs.probs] if inputs.raw_probs is None else [inputs.probs, inputs.raw_probs]
    own = [draft.topk(tokens.shape[-1], -1).indices for draft in drafts]
    tokens = torch.cat([tokens, *(torch.cat([best, tokens[:, -1:]], 1) for best in own)], -1)
    drawn = (torch.nn.functional.pad(d.gather(-1, tokens[:, :-1]), (0, 0, 0, 1), value=-1.0) for d in drafts)
    return tokens, probs.gather(-1, tokens), *drawn


class ChainVerification(Verification[VerifyChainPhase]):
    """Of chains."""

    def _verified(self, decided: list[list[int]], rest: np.ndarray, floats: list[np.ndarray]) -> Verified:
        num_accepted, recovery, finite, draft_finite = decided
        k, options = self.proposal.tokens.shape[1], self.phase.options
        probabilities = None
        if options.record:
            numbers = floats.pop(0)
            probabilities = RoundProbabilities(numbers, k, self.sampled, self.proposal.token_probs is not None)
        return Verified(
            rest.tolist(),
            self.proposal.num_drafted,
            num_accepted,
            recovery,
            [bool(f) for f in finite],
            [bool(f) for f in draft_finite],
            probabilities,
            Alternatives(*floats) if options.details else None,
        )


def launch_verify(
    runner: StepRunner, rows: RowTensors, bounds: Bounds, proposal: Proposal, options: VerifyOptions
) -> ChainVerification:
    """Start deciding which draft tokens of chains stay; K/V of all k + 1 rows is written, of which the accepted prefix
    is valid.
    """
    return ready_verify(runner, rows, bounds, proposal, options).start()


def ready_verify(
    runner: StepRunner, rows: RowTensors, bounds: Bounds, proposal: Proposal, options: VerifyOptions
) -> ChainVerification:
    """The same, to be started before anything else is verified, or never."""
    context = runner.bound(bounds.length + proposal.tokens.shape[1])
    return ChainVerification(VerifyChainPhase(context, options), runner, rows, proposal)
