"""Verify chains: one target forward over the last committed token and the k draft tokens, then acceptance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ssd_lab.decoding.acceptance import Outcome
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
    advanced_rows,
    decided_integers,
)
from ssd_lab.rounds.alternatives import Alternatives
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import Bounds, RowTensors, causal_step
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.verified import RoundProbabilities, Verified


@dataclass(frozen=True)
class VerifyChainPhase(VerifyPhase):
    """Over chains of k draft tokens."""

    name: ClassVar[str] = "verify"

    def step(self, runner: StepRunner, inputs: VerifyInputs) -> StepInput:
        """k + 1 rows, each seeing all before it."""
        rows, tokens = inputs.rows, torch.cat([inputs.rows.last_tokens[:, None], inputs.draft_tokens], 1)
        longest = self.context - tokens.shape[1]
        return causal_step(tokens, rows.lengths - 1, rows.tables, runner.block_size, longest=longest)

    def decide(
        self,
        runner: StepRunner,
        inputs: VerifyInputs,
        step: StepInput,
        scores: Scores,
        features: torch.Tensor | None,
    ) -> Decision:
        """The longest accepted prefix (`decoding/acceptance.py`)."""
        rows, drafted, kernels = inputs.rows, inputs.draft_tokens, runner.decoder.kernels
        k = drafted.shape[1]
        coins = recovery_coins = None
        if scores.probs is None:
            outcome = kernels.accept_greedy(scores.choices, drafted, rows.num_drafted)
        else:
            places = rows.lengths[:, None] + torch.arange(k + 1, device=drafted.device)
            seeds = rows.sampling.seeds[:, None]
            coins = uniform(seeds, places[:, :k], Purpose.ACCEPT)
            recovery_coins = uniform(seeds, places, Purpose.RECOVERY)
            outcome = kernels.accept_sampled(
                scores.probs, drafted, inputs.probs, rows.num_drafted, coins, recovery_coins
            )
        accepted = outcome.num_accepted
        numbers = None
        if self.options.record:
            of_drafted, of_recovery = _probabilities(scores, drafted, outcome)
            drawn = None if recovery_coins is None else recovery_coins.gather(1, accepted[:, None])
            parts = (of_drafted, of_recovery, inputs.token_probs, coins, drawn)
            numbers = torch.cat([part.float() for part in parts if part is not None], 1)
        details = _likeliest(scores.known, inputs, self.options.details) if self.options.details else ()
        advanced = None
        if self.options.advance:
            advanced = advanced_rows(rows, step.token_ids, accepted, accepted, outcome.recovery_token)
        decided = decided_integers(accepted, outcome.recovery_token, scores, inputs)
        return Decision(torch.cat([decided, drafted], 1), numbers, details, scores.logits, advanced, features)


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


def _probabilities(scores: Scores, draft_tokens: torch.Tensor, outcome: Outcome) -> tuple[torch.Tensor, torch.Tensor]:
    """The target's probability of each draft token `[batch, k]` and of the recovery token `[batch, 1]`, under what was
    sampled from (greedy: softmax).
    """
    at, token = outcome.num_accepted[:, None], draft_tokens.unsqueeze(-1)
    if scores.probs is None and not draft_tokens.shape[1]:
        return scores.choice_probs[:, :0], scores.choice_probs
    if scores.probs is None:  # a softmax is known by one of its values
        logits, best = scores.logits[:, :-1], scores.choices[:, :-1].unsqueeze(-1)
        beside = (logits.gather(-1, token) - logits.gather(-1, best)).squeeze(-1)
        return beside.exp() * scores.choice_probs[:, :-1], scores.choice_probs.gather(1, at)
    every = torch.arange(len(at), device=at.device)[:, None]
    drafted = scores.probs[:, :-1].gather(-1, token).squeeze(-1)
    return drafted, scores.probs[every, at, outcome.recovery_token[:, None]]


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
