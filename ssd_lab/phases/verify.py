"""Verify: one target forward over the last committed token and the k draft tokens, then acceptance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ssd_lab.decoding.acceptance import Outcome
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.sampling import target_distribution
from ssd_lab.execution.executor import Tensors
from ssd_lab.execution.host_copy import HostCopy, sent
from ssd_lab.rounds.alternatives import Alternatives
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowTensors, causal_step
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.verified_trees import VerifiedTrees


@dataclass(frozen=True)
class VerifyOptions:
    """record: keep probabilities for the trace. details: of so many likeliest tokens of either model too, at every
    place. feature_layers: keep the residual stream at these layers' inputs. advance: tell on the device what the next
    round starts from.
    """

    record: bool = True
    details: int = 0
    feature_layers: tuple[int, ...] = ()
    advance: bool = False


@dataclass(frozen=True)
class RoundProbabilities:
    """What a trace keeps of a round, float32, side by side in `numbers` `[batch, n]`.

    sampled: was anything drawn? drafted: did the draft tell its probabilities?
    """

    numbers: np.ndarray
    k: int
    sampled: bool
    drafted: bool

    @property
    def target(self) -> np.ndarray:
        """The target's probability of each draft token `[batch, k]`."""
        return self.numbers[:, : self.k]

    @property
    def recovery(self) -> np.ndarray:
        """The target's probability of the recovery token `[batch]`."""
        return self.numbers[:, self.k]

    @property
    def draft(self) -> np.ndarray | None:
        """The draft's probability of its own tokens `[batch, k]`; None: certain guesses."""
        return self.numbers[:, self.k + 1 : 2 * self.k + 1] if self.drafted else None

    @property
    def coins(self) -> np.ndarray | None:
        """The uniform number that each draft token was tested with `[batch, k]`; None at temperature 0, and of no
        meaning in trees, where siblings have one each.
        """
        return self.numbers[:, -self.k - 1 : -1] if self.sampled else None

    @property
    def recovery_coins(self) -> np.ndarray | None:
        """The uniform number that drew the recovery token `[batch]`; None at temperature 0."""
        return self.numbers[:, -1] if self.sampled else None


@dataclass(frozen=True)
class Verified:
    """A round's outcome on the host.

    draft_tokens: of each row, padding included; of a tree the accepted path and, after it, first children down to a
    leaf. num_drafted: how many of them are real. finite: False for a row whose logits hold NaN or infinity.
    draft_finite: the same for the draft's probabilities. Where trees were verified, paths: the accepted nodes of each
    row; trees: the trees, if recorded.
    """

    draft_tokens: list[list[int]]
    num_drafted: list[int]
    num_accepted: list[int]
    recovery_tokens: list[int]
    finite: list[bool]
    draft_finite: list[bool]
    probabilities: RoundProbabilities | None
    alternatives: Alternatives | None = None
    paths: list[list[int]] | None = None
    trees: VerifiedTrees | None = None


class Verification:
    """A verification under way. `collect` waits for its outcome.

    logits `[batch, k + 1, vocab]`, features `[batch, k + 1, layers * hidden]` and advanced `[3, batch]` (lengths,
    previous and last tokens of the next round) stay on the device, until the next verification overwrites them.
    """

    paths: torch.Tensor | None = None  # of trees only

    def __init__(self, proposal: Proposal, outputs: Tensors, *, sampled: bool, options: VerifyOptions) -> None:
        outcome, self.logits, *rest = outputs
        self.proposal = proposal
        self.features = rest.pop() if options.feature_layers else None
        self.advanced = rest.pop() if options.advance else None
        self._sampled, self._record, self._details = sampled, options.record, options.details
        self._copy = HostCopy(outcome, *rest)

    def wait(self) -> None:
        """Until the device is done with it."""
        self._copy.arrays()

    def collect(self) -> Verified:
        """The outcome; waits for the device."""
        ints, *floats = self._copy.arrays()
        batch, k = len(self.proposal.num_drafted), self.proposal.tokens.shape[1]
        num_accepted, recovery, finite, draft_finite = ints[:batch, :4].T.tolist()
        probabilities = None
        if self._record:
            probabilities = RoundProbabilities(
                floats[0][:batch], k, self._sampled, self.proposal.token_probs is not None
            )
        return Verified(
            ints[:batch, 4:].tolist(),
            self.proposal.num_drafted,
            *(num_accepted, recovery, [bool(f) for f in finite], [bool(f) for f in draft_finite]),
            probabilities,
            Alternatives.of_arrays(floats[1:], batch) if self._details else None,
        )


def launch_verify(runner: StepRunner, rows: RowTensors, proposal: Proposal, options: VerifyOptions) -> Verification:
    """Start deciding which draft tokens stay; K/V of all k + 1 rows is written, of which the accepted prefix is valid.

    rows.num_drafted says how many of a row's draft tokens are real.
    """
    k = proposal.tokens.shape[1]
    sampled = not rows.sampling.all_greedy
    longest = runner.executor.context_bound(rows.longest + k)
    draft_probs = proposal.probs if sampled else None
    token_probs = proposal.token_probs if options.record else None
    raw_probs = proposal.raw_probs if options.details and draft_probs is not None else None
    given = (draft_probs, token_probs, raw_probs)
    extra = [
        padded_rows(sent(tensor, runner.device), len(rows))
        for tensor in (proposal.tokens, *given)
        if tensor is not None
    ]

    def phase(*tensors: torch.Tensor) -> Tensors:
        own, (draft_tokens, *rest) = tensors[: -len(extra)], tensors[-len(extra) :]
        probs = [None if tensor is None else rest.pop(0) for tensor in given]
        return _Verify(runner, rows.with_tensors(own), draft_tokens, *probs).outputs(longest, sampled, options)

    absent = tuple(tensor is None for tensor in given)
    static = (longest, sampled, sampled and rows.sampling.any_filter, *absent, options)
    outputs = runner.call("verify", static, phase, *rows.tensors(), *extra)
    return Verification(proposal, outputs, sampled=sampled, options=options)


def padded_rows(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """With as many rows as the phase computes; what the further ones hold does not matter."""
    missing = rows - tensor.shape[0]
    return tensor if missing == 0 else torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])


def advanced_rows(
    rows: RowTensors, tokens: torch.Tensor, at: torch.Tensor, num_accepted: torch.Tensor, recovery_token: torch.Tensor
) -> torch.Tensor:
    """Lengths, previous and last tokens after an outcome, `[3, batch]`; padding rows stay empty.

    at `[batch]`: where in the verified `tokens` (the last committed one first) each row's last accepted one stands, 0
    if none was.
    """
    grown = torch.where(rows.lengths > 0, rows.lengths + num_accepted + 1, 0)
    return torch.stack([grown, tokens.gather(1, at[:, None]).squeeze(1), recovery_token])


@dataclass(frozen=True)
class _Verify:
    runner: StepRunner
    rows: RowTensors
    draft_tokens: torch.Tensor
    draft_probs: torch.Tensor | None
    token_probs: torch.Tensor | None
    raw_probs: torch.Tensor | None

    def outputs(self, longest: int, sampled: bool, options: VerifyOptions) -> Tensors:
        """Outcome `[batch, 4 + k]` (num_accepted, recovery token, finite, draft finite, draft tokens), logits, and what
        the options ask for.
        """
        rows, k, kernels = self.rows, self.draft_tokens.shape[1], self.runner.decoder.kernels
        tokens = torch.cat([rows.last_tokens[:, None], self.draft_tokens], dim=1)
        step = causal_step(tokens, rows.lengths - 1, rows.tables, self.runner.block_size, longest=longest - k - 1)
        features = dict.fromkeys(options.feature_layers, tokens)
        logits = self.runner.logits(step, features=features or None)
        probs = coins = recovery_coins = None
        # by the likeliest token's probability the host learns whether the logits are numbers, and the trace the rest
        choices, choice_probs = kernels.greedy_pick(logits.flatten(0, 1), True)
        if choice_probs is None:
            raise RuntimeError("the kernels gave no probabilities")
        choices, choice_probs = choices.view(tokens.shape), choice_probs.view(tokens.shape)
        if sampled:
            probs = target_distribution(logits, rows.sampling)
            places = rows.lengths[:, None] + torch.arange(k + 1, device=tokens.device)
            seeds = rows.sampling.seeds[:, None]
            coins = uniform(seeds, places[:, :k], Purpose.ACCEPT)
            recovery_coins = uniform(seeds, places, Purpose.RECOVERY)
            outcome = kernels.accept_sampled(
                probs, self.draft_tokens, self.draft_probs, rows.num_drafted, coins, recovery_coins
            )
        else:
            outcome = kernels.accept_greedy(choices, self.draft_tokens, rows.num_drafted)
        finite = torch.isfinite(choice_probs).all(-1)
        draft_finite = torch.ones_like(finite)
        for numbers in (self.draft_probs, self.token_probs):
            if numbers is not None and k:
                draft_finite = draft_finite & torch.isfinite(numbers.flatten(1).sum(-1))
        decided = [outcome.num_accepted, outcome.recovery_token, finite.long(), draft_finite.long()]
        outputs = [torch.cat([torch.stack(decided, 1), self.draft_tokens], 1), logits]
        if options.record:
            drafted, recovered = self._probabilities(logits, choices, choice_probs, probs, outcome)
            parts = (
                *(drafted, recovered, self.token_probs, coins),
                None if recovery_coins is None else recovery_coins.gather(1, outcome.num_accepted[:, None]),
            )
            outputs.append(torch.cat([part.float() for part in parts if part is not None], 1))
        if options.details:
            outputs += self._likeliest(torch.softmax(logits, -1) if probs is None else probs, options.details)
        if options.advance:
            at = outcome.num_accepted
            outputs.append(advanced_rows(self.rows, tokens, at, at, outcome.recovery_token))
        if options.feature_layers:
            outputs.append(torch.cat([features[layer] for layer in options.feature_layers], -1))
        return tuple(outputs)

    def _likeliest(self, probs: torch.Tensor, count: int) -> Tensors:
        """The fields of `Alternatives`."""
        tokens = probs.topk(min(count, probs.shape[-1]), -1).indices
        if self.draft_probs is None or not self.draft_probs.shape[1]:
            given = probs.gather(-1, tokens)
            return tokens, given, torch.full_like(given, -1.0)
        drafts = [self.draft_probs] if self.raw_probs is None else [self.draft_probs, self.raw_probs]
        own = [draft.topk(tokens.shape[-1], -1).indices for draft in drafts]
        tokens = torch.cat([tokens, *(torch.cat([best, tokens[:, -1:]], 1) for best in own)], -1)
        drawn = (torch.nn.functional.pad(d.gather(-1, tokens[:, :-1]), (0, 0, 0, 1), value=-1.0) for d in drafts)
        return tokens, probs.gather(-1, tokens), *drawn

    def _probabilities(
        self,
        logits: torch.Tensor,
        choices: torch.Tensor,
        choice_probs: torch.Tensor,
        probs: torch.Tensor | None,
        outcome: Outcome,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The target's probability of each draft token `[batch, k]` and of the recovery token `[batch, 1]`, under what
        was sampled from (greedy: softmax).
        """
        at, token = outcome.num_accepted[:, None], self.draft_tokens.unsqueeze(-1)
        if probs is None and not self.draft_tokens.shape[1]:
            return choice_probs[:, :0], choice_probs
        if probs is None:  # a softmax is known by one of its values
            beside = logits[:, :-1].gather(-1, token) - logits[:, :-1].gather(-1, choices[:, :-1].unsqueeze(-1))
            return beside.squeeze(-1).exp() * choice_probs[:, :-1], choice_probs.gather(1, at)
        every = torch.arange(len(at), device=at.device)[:, None]
        return probs[:, :-1].gather(-1, token).squeeze(-1), probs[every, at, outcome.recovery_token[:, None]]
