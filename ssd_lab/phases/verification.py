"""What verifying chains and trees have in common: the target forward, the decision, and its way to the host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, Self, TypeVar

import numpy as np
import torch

from ssd_lab.decoding.sampling import target_distribution
from ssd_lab.execution.host_copy import HostCopy, sent
from ssd_lab.execution.phase import Phase
from ssd_lab.execution.structure import Tensors, each_tensor
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowTensors, padded_rows
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.token_tree import TokenTree
from ssd_lab.rounds.verified import Verified

DECIDED = 4  # integers of a decision for each row: accepted length, recovery token, is the target finite, is the draft


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
class VerifyInputs:
    """draft_tokens `[batch, k]` and how they hang together (None: chains), of which rows.num_drafted are real; probs,
    token_probs, raw_probs as in `Proposal`, None where there are none or nobody wants them.
    """

    rows: RowTensors
    draft_tokens: torch.Tensor
    tree: TokenTree | None
    probs: torch.Tensor | None
    token_probs: torch.Tensor | None
    raw_probs: torch.Tensor | None


@dataclass(frozen=True)
class Decision:
    """What a verification comes to on the device.

    integers `[batch, 4 + n]`: accepted length, recovery token, is the target finite, is the draft, and what tells the
    draft tokens. numbers `[batch, m]`: probabilities (None unless recorded). details: the likeliest tokens (empty
    unless asked for). logits `[batch, k + 1, vocab]` (of a tree along the accepted path). advanced `[3, batch]`:
    lengths, previous and last tokens of the next round. features `[batch, k + 1, layers * hidden]`. Both None unless
    asked for.
    """

    integers: torch.Tensor
    numbers: torch.Tensor | None
    details: Tensors
    logits: torch.Tensor
    advanced: torch.Tensor | None
    features: torch.Tensor | None


@dataclass(frozen=True)
class Scores:
    """The target's say on every row of the forward: logits `[batch, rows, vocab]`, the likeliest tokens and their
    probabilities `[batch, rows]`, and what is sampled from (None: every row is greedy).
    """

    logits: torch.Tensor
    choices: torch.Tensor
    choice_probs: torch.Tensor
    probs: torch.Tensor | None

    @property
    def known(self) -> torch.Tensor:
        """The target's distributions `[batch, rows, vocab]`: what is sampled from, else a softmax."""
        return torch.softmax(self.logits, -1) if self.probs is None else self.probs


@dataclass(frozen=True)
class VerifyPhase(Phase[StepRunner, VerifyInputs, Decision], ABC):
    """The target forward, and its say on every row. K/V of all rows is written, of which what is accepted is valid.

    context: a bound on the cache positions in use.
    """

    context: int
    options: VerifyOptions

    def run(self, runner: StepRunner, inputs: VerifyInputs) -> Decision:
        """See `Decision`."""
        step = self.step(runner, inputs)
        features = dict.fromkeys(self.options.feature_layers, step.token_ids)
        logits = runner.logits(step, features=features or None)
        # by the likeliest token's probability the host learns whether the logits are numbers, and the trace the rest
        choices, choice_probs = runner.decoder.kernels.greedy_pick(logits.flatten(0, 1), want_probs=True)
        if choice_probs is None:
            raise RuntimeError("the kernels gave no probabilities")
        shape = step.token_ids.shape
        sampled = not inputs.rows.sampling.all_greedy
        probs = target_distribution(logits, inputs.rows.sampling) if sampled else None
        scores = Scores(logits, choices.view(shape), choice_probs.view(shape), probs)
        stacked = None
        if features:
            stacked = torch.cat([features[layer] for layer in self.options.feature_layers], -1)
        return self.decide(runner, inputs, step, scores, stacked)

    def elsewhere(self, inputs: VerifyInputs) -> tuple[FollowPhase, VerifyInputs]:
        """Other ranks decide nothing, so that the draft's distributions, the largest inputs, stay here."""
        return FollowPhase(self), replace(inputs, probs=None, token_probs=None, raw_probs=None)

    def follow(self, runner: StepRunner, inputs: VerifyInputs) -> None:
        """What another rank does while the first runs this."""
        runner.logits(self.step(runner, inputs))

    @abstractmethod
    def step(self, runner: StepRunner, inputs: VerifyInputs) -> StepInput:
        """The forward: the last committed token, then the draft tokens."""

    @abstractmethod
    def decide(
        self,
        runner: StepRunner,
        inputs: VerifyInputs,
        step: StepInput,
        scores: Scores,
        features: torch.Tensor | None,
    ) -> Decision:
        """Accept, and put together what leaves the device; features: of every row of the forward."""


@dataclass(frozen=True)
class FollowPhase(Phase[StepRunner, VerifyInputs, None]):
    """The part of another rank in a verification that the first one decides."""

    name: ClassVar[str] = "follow"

    verification: VerifyPhase

    def run(self, runner: StepRunner, inputs: VerifyInputs) -> None:
        """The forward, and what depends on the decision."""
        self.verification.follow(runner, inputs)


AnyVerifyPhase = TypeVar("AnyVerifyPhase", bound=VerifyPhase)


class Verification(ABC, Generic[AnyVerifyPhase]):
    """A verification: `start` queues it, `collect` waits for its outcome. What must not come later than the target's
    own work may be queued between `launch` and `send`, which together are `start`.

    `logits`, `decided` (the decision's integers), `features` and `advanced` (see `Decision`) stay on the device until
    the next verification overwrites them; so do paths `[batch, depth]` of trees, the accepted nodes from the root down
    and then -1.
    """

    paths: torch.Tensor | None = None

    def __init__(self, phase: AnyVerifyPhase, runner: StepRunner, rows: RowTensors, proposal: Proposal) -> None:
        self.phase, self.proposal = phase, proposal
        self.sampled = not rows.sampling.all_greedy
        self._work = runner.ready(phase, self._inputs(runner, rows))
        self._confirm = runner.executor.confirm

    def start(self) -> Self:
        """Queue it, once."""
        self.launch()
        return self.send()

    def launch(self) -> None:
        """Queue what the target computes."""
        self._decision = self._work()

    def send(self) -> Self:
        """Queue the way of the outcome to the host."""
        decision = self._decision
        self.logits, self.decided = decision.logits, decision.integers
        self.features, self.advanced = decision.features, decision.advanced
        self._decided(decision)
        numbers = () if decision.numbers is None else (decision.numbers,)
        self._copy = HostCopy(decision.integers, *numbers, *decision.details)
        return self

    def wait(self) -> None:
        """Until the device is done with it."""
        self._copy.arrays()

    def collect(self) -> Verified:
        """The outcome; waits for the device."""
        batch = len(self.proposal.num_drafted)
        integers, *floats = (array[:batch] for array in self._copy.arrays())
        self._confirm()
        decided = integers[:, :DECIDED].T.tolist()
        return self._verified(decided, integers[:, DECIDED:], floats)

    def _decided(self, decision: Decision) -> None:
        """The outcome will lie there."""

    @abstractmethod
    def _verified(self, decided: list[list[int]], rest: np.ndarray, floats: list[np.ndarray]) -> Verified:
        """decided: of each row the first columns of the decision; rest `[batch, n]`: the others."""

    def _inputs(self, runner: StepRunner, rows: RowTensors) -> VerifyInputs:
        """Where they are read, with as many rows as the phase computes."""
        proposal, options = self.proposal, self.phase.options
        probs = proposal.probs if self.sampled else None
        token_probs = proposal.token_probs if options.record else None
        raw_probs = proposal.raw_probs if options.details and probs is not None and proposal.tree is None else None
        given = (proposal.tokens, proposal.tree, probs, token_probs, raw_probs)
        return VerifyInputs(rows, *each_tensor(lambda one: padded_rows(sent(one, runner.device), len(rows)), given))


def draft_numbers(inputs: VerifyInputs) -> list[torch.Tensor]:
    """What the draft says of its tokens, as far as it was given."""
    return [numbers for numbers in (inputs.probs, inputs.token_probs) if numbers is not None]
