"""Verify trees: one target forward over the last committed token and all nodes, acceptance, the path's K/V moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ssd_lab.decoding.decision import advanced_rows, decided_integers
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.tree_acceptance import (
    TreeOutcome,
    accept_tree_certain,
    accept_tree_greedy,
    accept_tree_sampled,
)
from ssd_lab.execution.structure import Tensors
from ssd_lab.kernels.places import slots_of
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.phases.keep_path import move_path
from ssd_lab.phases.tree_alternatives import tree_alternatives
from ssd_lab.phases.verification import (
    DECIDED,
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
from ssd_lab.rounds.rows import Bounds, RowTensors
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.token_tree import TokenTree, paths_from_root
from ssd_lab.rounds.verified import RoundProbabilities, Verified
from ssd_lab.rounds.verified_trees import VerifiedTrees


@dataclass(frozen=True)
class VerifyTreePhase(VerifyPhase):
    """Over trees of draft tokens. While it runs, node i has its K/V at the i-th place behind the committed tokens; the
    accepted path's is moved to where committed tokens have theirs.

    integers of its decision, behind the first four: the path `[batch, depth]`, tokens, parents and valid of the nodes.
    """

    name: ClassVar[str] = "verify_tree"

    def step(self, runner: StepRunner, inputs: VerifyInputs) -> StepInput:
        """The last committed token where it stands; each node behind the text, seeing the text and its ancestors."""
        tree, rows, tokens = _tree_of(inputs), inputs.rows, inputs.draft_tokens
        last = rows.lengths[:, None] - 1
        ancestors, depths = paths_from_root(tree.parents, tree.depth)
        behind = torch.where(ancestors < 0, -1, ancestors + rows.lengths[:, None, None])
        own = rows.lengths[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        return StepInput(
            token_ids=torch.cat([rows.last_tokens[:, None], tokens], 1),
            positions=torch.cat([last, last + depths], 1).clamp(min=0),
            write_slots=slots_of(torch.cat([last, own], 1), rows.tables, runner.block_size),
            block_tables=rows.tables,
            prefix_lengths=rows.lengths[:, None].expand(-1, 1 + own.shape[1]).contiguous(),
            context_length=self.context,
            ancestors=torch.nn.functional.pad(behind, (0, 0, 1, 0), value=-1),
            text_order=True,
        )

    def follow(self, runner: StepRunner, inputs: VerifyInputs) -> None:
        """The forward, and the accepted path's K/V moved."""
        super().follow(runner, inputs)
        path = inputs.draft_tokens.new_empty(len(inputs.rows), _tree_of(inputs).depth)
        move_path(runner, inputs.rows, runner.agreed(path))

    def decide(
        self,
        runner: StepRunner,
        inputs: VerifyInputs,
        step: StepInput,
        scores: Scores,
        features: torch.Tensor | None,
    ) -> Decision:
        """The accepted path (`decoding/tree_acceptance.py`)."""
        tree, rows, tokens, options = _tree_of(inputs), inputs.rows, inputs.draft_tokens, self.options
        numbers = coins = None
        if scores.probs is None:
            outcome = accept_tree_greedy(
                scores.choices, tokens, tree.parents, depth=tree.depth, width=tree.width, valid=tree.valid
            )
        else:
            places = rows.lengths[:, None] + torch.arange(tree.depth + 1, device=tokens.device)
            seeds, siblings = rows.sampling.seeds[:, None], torch.arange(tree.width, device=tokens.device)
            numbers = uniform(seeds, places, Purpose.RECOVERY)
            coins = uniform(seeds.unsqueeze(-1), places[:, :-1].unsqueeze(-1), Purpose.ACCEPT, siblings)
            outcome = _accept_sampled(inputs, scores.probs, coins, numbers)
        move_path(runner, rows, runner.agreed(outcome.path))
        accepted, recovery = outcome.num_accepted, outcome.recovery_token
        along = torch.nn.functional.pad(outcome.path + 1, (1, 0))  # rows of the forward: the root's, then the path's
        every = torch.arange(len(rows), device=tokens.device)[:, None]
        details: Tensors = ()
        if options.details:
            details = tree_alternatives(tree, tokens, scores.known, inputs.probs, coins, options.details)
        decided = decided_integers(accepted, recovery, scores.choice_probs, draft_numbers(inputs))
        return Decision(
            integers=torch.cat([decided, outcome.path, tokens, tree.parents, tree.valid.long()], 1),
            numbers=_numbers(scores, inputs, outcome, numbers) if options.record else None,
            details=details,
            logits=scores.logits[every, along],
            advanced=advanced_rows(rows.lengths, step.token_ids, along.amax(1), accepted, recovery)
            if options.advance
            else None,
            features=None if features is None else features[every, along],
        )


def _tree_of(inputs: VerifyInputs) -> TokenTree:
    if inputs.tree is None:
        raise ValueError("chains were given where trees are verified")
    return inputs.tree


def _accept_sampled(
    inputs: VerifyInputs, probs: torch.Tensor, coins: torch.Tensor, numbers: torch.Tensor
) -> TreeOutcome:
    """Each row by the law of its own draft: certain guesses, or drawn without replacement."""
    tree, tokens = _tree_of(inputs), inputs.draft_tokens
    shape = {"depth": tree.depth, "width": tree.width}
    guessed = accept_tree_certain(probs, tokens, tree.parents, numbers, valid=tree.valid, **shape)
    if inputs.probs is None:
        return guessed
    drawn = accept_tree_sampled(
        probs,
        tokens,
        tree.parents,
        inputs.probs,
        coins,
        numbers,
        draft_rows=tree.drawn_from,
        valid=tree.valid,
        **shape,
    )
    certain = tree.certain | (inputs.rows.sampling.temperature == 0)
    return TreeOutcome(
        torch.where(certain[:, None], guessed.path, drawn.path),
        torch.where(certain, guessed.num_accepted, drawn.num_accepted),
        torch.where(certain, guessed.recovery_token, drawn.recovery_token),
    )


def _numbers(scores: Scores, inputs: VerifyInputs, outcome: TreeOutcome, numbers: torch.Tensor | None) -> torch.Tensor:
    """Side by side `[batch, 2 + nodes or 2 + 2 * nodes]`: the recovery token's probability and number, each node's
    probability under the target, under the draft. Of what was sampled from (greedy: softmax).
    """
    logits, tree = scores.logits, _tree_of(inputs)
    every = torch.arange(len(logits), device=logits.device)[:, None]
    at = (outcome.path.amax(1) + 1)[:, None]  # a path's numbers grow, and -1 fills it up
    rows = torch.cat([at, tree.parents + 1], 1)
    tokens = torch.cat([outcome.recovery_token[:, None], inputs.draft_tokens], 1)
    if scores.probs is None:  # a softmax is known by one of its values
        beside = logits[every, rows, tokens] - logits[every, rows, scores.choices[every, rows]]
        target = beside.exp() * scores.choice_probs[every, rows]
    else:
        target = scores.probs[every, rows, tokens]
    coin = torch.zeros_like(target[:, :1])
    if numbers is not None:
        coin = numbers.gather(1, outcome.num_accepted[:, None])
    parts = [target[:, :1], coin, target[:, 1:], inputs.token_probs]
    return torch.cat([part.float() for part in parts if part is not None], 1)


class TreeVerification(Verification[VerifyTreePhase]):
    """Of trees. Its paths are followed by rows of padding."""

    def __init__(
        self, phase: VerifyTreePhase, runner: StepRunner, rows: RowTensors, proposal: Proposal, tree: TokenTree
    ) -> None:
        self._tree = tree
        super().__init__(phase, runner, rows, proposal)

    def _decided(self, decision: Decision) -> None:
        self.paths = decision.integers[:, DECIDED : DECIDED + self._tree.depth]

    def _verified(self, decided: list[list[int]], rest: np.ndarray, floats: list[np.ndarray]) -> Verified:
        num_accepted, recovery, finite, draft_finite = decided
        (batch, nodes), depth, options = self.proposal.tokens.shape, self._tree.depth, self.phase.options
        path, tokens, parents, valid = np.split(rest, np.cumsum([depth, nodes, nodes]), axis=1)
        numbers = target = drafted = None
        if options.record:
            numbers = floats.pop(0)
            target = numbers[:, 2 : 2 + nodes]
            drafted = numbers[:, 2 + nodes :] if self.proposal.token_probs is not None else None
        after = tried = coins = None
        if options.details:
            listed, likely, likely_draft, *as_tried, coins = floats
            after = Alternatives(listed, likely, likely_draft)
            tried = Alternatives(listed[np.arange(batch)[:, None], parents + 1], *as_tried)
        trees = VerifiedTrees(tokens, parents, valid != 0, drafted, target, tried, coins)
        accepted = zip(path, num_accepted, strict=True)
        chains = [trees.chain(row, nodes[:count].tolist()) for row, (nodes, count) in enumerate(accepted)]
        probabilities = None
        if numbers is not None and target is not None:
            parts = [trees.along(chains, target, depth), numbers[:, :1]]
            if drafted is not None:
                parts.append(trees.along(chains, drafted, depth))
            if self.sampled:
                parts += [np.zeros((batch, depth), target.dtype), numbers[:, 1:2]]
            probabilities = RoundProbabilities(np.concatenate(parts, 1), depth, self.sampled, drafted is not None)
        return Verified(
            draft_tokens=[tokens[row, chain].tolist() for row, chain in enumerate(chains)],
            num_drafted=[len(chain) for chain in chains],
            num_accepted=num_accepted,
            recovery_tokens=recovery,
            finite=[bool(f) for f in finite],
            draft_finite=[bool(f) for f in draft_finite],
            probabilities=probabilities,
            alternatives=None if after is None else after.at(_rows_along(chains, depth)),
            trees=trees if options.record else None,
        )


def _rows_along(chains: list[list[int]], depth: int) -> np.ndarray:
    """The forward's rows before and along each chain `[batch, depth + 1]`, padded with the first."""
    rows = np.zeros((len(chains), depth + 1), np.int64)
    for row, chain in enumerate(chains):
        rows[row, 1 : len(chain) + 1] = np.array(chain, np.int64) + 1
    return rows


def launch_verify_tree(
    runner: StepRunner, rows: RowTensors, bounds: Bounds, proposal: Proposal, tree: TokenTree, options: VerifyOptions
) -> TreeVerification:
    """Start deciding which path stays. The sequences' tables must reach as far behind the committed tokens as there are
    nodes.
    """
    context = runner.bound(bounds.length + proposal.tokens.shape[1])
    return TreeVerification(VerifyTreePhase(context, options), runner, rows, proposal, tree).start()
