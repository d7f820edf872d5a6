"""Verify a tree: one target forward over the last committed token and all nodes, acceptance, the path's K/V moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.sampling import target_distribution
from ssd_lab.decoding.tree_acceptance import (
    TreeOutcome,
    accept_tree_certain,
    accept_tree_greedy,
    accept_tree_sampled,
)
from ssd_lab.execution.executor import Tensors
from ssd_lab.execution.host_copy import HostCopy, sent
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.phases.keep_path import move_path
from ssd_lab.phases.tree_alternatives import tree_alternatives
from ssd_lab.phases.verify import RoundProbabilities, Verified, VerifyOptions, advanced_rows, padded_rows
from ssd_lab.rounds.alternatives import Alternatives
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowTensors, slots_of
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.token_tree import TokenTree, paths_from_root
from ssd_lab.rounds.verified_trees import VerifiedTrees


class TreeVerification:
    """A verification under way. `collect` waits for its outcome.

    logits `[batch, depth + 1, vocab]` and features `[batch, depth + 1, layers * hidden]`, after the last committed
    token and each token of the accepted path, stay on the device until the next verification overwrites them. So do
    paths `[batch, depth]`, the accepted nodes from the root down and then -1, and advanced `[3, batch]` (lengths,
    previous and last tokens of the next round); rows of padding follow in both.
    """

    def __init__(
        self, proposal: Proposal, tree: TokenTree, outputs: Tensors, *, sampled: bool, options: VerifyOptions
    ) -> None:
        ints, self.logits, *rest = outputs
        self.proposal = proposal
        self.features = rest.pop() if options.feature_layers else None
        self.advanced = rest.pop() if options.advance else None
        self.paths = ints[:, 4 : 4 + tree.depth]
        self._depth, self._sampled, self._record = tree.depth, sampled, options.record
        self._details = options.details > 0
        self._copy = HostCopy(ints, *rest)

    def wait(self) -> None:
        """Until the device is done with it."""
        self._copy.arrays()

    def collect(self) -> Verified:
        """The outcome; waits for the device."""
        ints, *floats = self._copy.arrays()
        batch, nodes = self.proposal.tokens.shape
        decided, path, tokens, parents, valid = np.split(
            ints[:batch], np.cumsum([4, self._depth, nodes, nodes]), axis=1
        )
        num_accepted, recovery, finite, draft_finite = decided.T.tolist()
        target = drafted = None
        if self._record:
            target = floats[0][:batch, 2 : 2 + nodes]
            drafted = floats[0][:batch, 2 + nodes :] if self.proposal.token_probs is not None else None
        after = tried = coins = None
        if self._details:
            listed, likely, likely_draft, *as_tried, coins = (array[:batch] for array in floats[1:])
            after = Alternatives(listed, likely, likely_draft)
            tried = Alternatives(listed[np.arange(batch)[:, None], parents + 1], *as_tried)
        trees = VerifiedTrees(tokens, parents, valid != 0, drafted, target, tried, coins)
        paths = [row[:count].tolist() for row, count in zip(path, num_accepted, strict=True)]
        chains = [trees.chain(row, path) for row, path in enumerate(paths)]
        probabilities = None
        if target is not None:
            recovered, coin = floats[0][:batch, :1], floats[0][:batch, 1:2]
            parts = [trees.along(chains, target, self._depth), recovered]
            if drafted is not None:
                parts.append(trees.along(chains, drafted, self._depth))
            if self._sampled:
                parts += [np.zeros((batch, self._depth), target.dtype), coin]
            numbers = np.concatenate(parts, 1)
            probabilities = RoundProbabilities(numbers, self._depth, self._sampled, drafted is not None)
        return Verified(
            draft_tokens=[tokens[row, chain].tolist() for row, chain in enumerate(chains)],
            num_drafted=[len(chain) for chain in chains],
            num_accepted=num_accepted,
            recovery_tokens=recovery,
            finite=[bool(f) for f in finite],
            draft_finite=[bool(f) for f in draft_finite],
            probabilities=probabilities,
            alternatives=None if after is None else after.at(_rows_along(chains, self._depth)),
            paths=paths,
            trees=trees if self._record else None,
        )


def _rows_along(chains: list[list[int]], depth: int) -> np.ndarray:
    """The forward's rows before and along each chain `[batch, depth + 1]`, padded with the first."""
    rows = np.zeros((len(chains), depth + 1), np.int64)
    for row, chain in enumerate(chains):
        rows[row, 1 : len(chain) + 1] = np.array(chain, np.int64) + 1
    return rows


def launch_verify_tree(
    runner: StepRunner, rows: RowTensors, proposal: Proposal, tree: TokenTree, options: VerifyOptions
) -> TreeVerification:
    """Start deciding which path stays. Its K/V ends where the committed tokens have theirs.

    While the phase runs, node i has its K/V at the i-th place behind the committed tokens: the sequence's table must
    reach that far.
    """
    nodes = proposal.tokens.shape[1]
    sampled = not rows.sampling.all_greedy
    longest = runner.executor.context_bound(rows.longest + nodes)
    draft_probs = proposal.probs if sampled else None
    token_probs = proposal.token_probs if options.record else None
    extra = [
        padded_rows(sent(tensor, runner.device), len(rows))
        for tensor in (*tree.tensors(), proposal.tokens, draft_probs, token_probs)
        if tensor is not None
    ]

    def phase(*tensors: torch.Tensor) -> Tensors:
        own, given = tensors[: -len(extra)], list(tensors[-len(extra) :])
        shape, (tokens, *rest) = tree.with_tensors(tuple(given[:4])), given[4:]
        probs = rest.pop(0) if draft_probs is not None else None
        step = _VerifyTree(runner, rows.with_tensors(own), shape, tokens, probs, rest[0] if rest else None)
        return step.outputs(longest, sampled, options)

    filtered = sampled and rows.sampling.any_filter
    static = (longest, sampled, filtered, draft_probs is None, token_probs is None, options, tree.depth, tree.width)
    outputs = runner.call("verify_tree", static, phase, *rows.tensors(), *extra)
    return TreeVerification(proposal, tree, outputs, sampled=sampled, options=options)


@dataclass(frozen=True)
class _VerifyTree:
    runner: StepRunner
    rows: RowTensors
    tree: TokenTree
    tokens: torch.Tensor
    draft_probs: torch.Tensor | None
    token_probs: torch.Tensor | None

    def outputs(self, longest: int, sampled: bool, options: VerifyOptions) -> Tensors:
        """Integers `[batch, 4 + depth + 3 * nodes]` (num_accepted, recovery token, finite, draft finite, path, tokens,
        parents, valid), logits along the path, and what the options ask for.
        """
        tree, rows = self.tree, self.rows
        step = self._step(longest)
        features = dict.fromkeys(options.feature_layers, self.tokens)
        logits = self.runner.logits(step, features=features or None)
        probs = numbers = coins = None
        # by the likeliest token's probability the host learns whether the logits are numbers, and the trace the rest
        choices, choice_probs = self.runner.decoder.kernels.greedy_pick(logits.flatten(0, 1), True)
        if choice_probs is None:
            raise RuntimeError("the kernels gave no probabilities")
        choices, choice_probs = choices.view(step.token_ids.shape), choice_probs.view(step.token_ids.shape)
        if sampled:
            probs = target_distribution(logits, rows.sampling)
            places = rows.lengths[:, None] + torch.arange(tree.depth + 1, device=logits.device)
            numbers = uniform(rows.sampling.seeds[:, None], places, Purpose.RECOVERY)
            coins = uniform(
                rows.sampling.seeds[:, None, None],
                places[:, :-1].unsqueeze(-1),
                Purpose.ACCEPT,
                torch.arange(tree.width, device=logits.device),
            )
            outcome = self._accept_sampled(probs, coins, numbers)
        else:
            outcome = accept_tree_greedy(
                choices, self.tokens, tree.parents, depth=tree.depth, width=tree.width, valid=tree.valid
            )
        move_path(self.runner, rows, outcome.path)
        finite = torch.isfinite(choice_probs).all(-1)
        draft_finite = torch.ones_like(finite)
        for given in (self.draft_probs, self.token_probs):
            if given is not None:
                draft_finite = draft_finite & torch.isfinite(given.flatten(1).sum(-1))
        decided = torch.stack([outcome.num_accepted, outcome.recovery_token, finite.long(), draft_finite.long()], 1)
        along = torch.nn.functional.pad(outcome.path + 1, (1, 0))  # rows of the forward: the root's, then the path's
        every = torch.arange(len(rows), device=logits.device)[:, None]
        outputs = [
            torch.cat([decided, outcome.path, self.tokens, tree.parents, tree.valid.long()], 1),
            logits[every, along],
        ]
        if options.record:
            outputs.append(self._numbers(logits, choices, choice_probs, probs, outcome, numbers))
        if options.details:
            known = torch.softmax(logits, -1) if probs is None else probs
            outputs += tree_alternatives(tree, self.tokens, known, self.draft_probs, coins, options.details)
        if options.advance:
            outputs.append(
                advanced_rows(*(rows, step.token_ids, along.amax(1), outcome.num_accepted, outcome.recovery_token))
            )
        if options.feature_layers:
            outputs.append(torch.cat([features[layer] for layer in options.feature_layers], -1)[every, along])
        return tuple(outputs)

    def _step(self, longest: int) -> StepInput:
        """The last committed token where it stands; each node behind the text, seeing the text and its ancestors."""
        tree, rows = self.tree, self.rows
        last = rows.lengths[:, None] - 1
        ancestors, depths = paths_from_root(tree.parents, tree.depth)
        behind = torch.where(ancestors < 0, -1, ancestors + rows.lengths[:, None, None])
        own = rows.lengths[:, None] + torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return StepInput(
            token_ids=torch.cat([rows.last_tokens[:, None], self.tokens], 1),
            positions=torch.cat([last, last + depths], 1).clamp(min=0),
            write_slots=slots_of(torch.cat([last, own], 1), rows.tables, self.runner.block_size),
            block_tables=rows.tables,
            prefix_lengths=rows.lengths[:, None].expand(-1, 1 + own.shape[1]).contiguous(),
            context_length=longest,
            ancestors=torch.nn.functional.pad(behind, (0, 0, 1, 0), value=-1),
            text_order=True,
        )

    def _accept_sampled(self, probs: torch.Tensor, coins: torch.Tensor, numbers: torch.Tensor) -> TreeOutcome:
        tree, sampling = self.tree, self.rows.sampling
        guessed = accept_tree_certain(
            *(probs, self.tokens, tree.parents, numbers), depth=tree.depth, width=tree.width, valid=tree.valid
        )
        if self.draft_probs is None:
            return guessed
        drawn = accept_tree_sampled(
            *(probs, self.tokens, tree.parents, self.draft_probs, coins, numbers),
            depth=tree.depth,
            width=tree.width,
            draft_rows=tree.drawn_from,
            valid=tree.valid,
        )
        certain = tree.certain | (sampling.temperature == 0)
        return TreeOutcome(
            torch.where(certain[:, None], guessed.path, drawn.path),
            torch.where(certain, guessed.num_accepted, drawn.num_accepted),
            torch.where(certain, guessed.recovery_token, drawn.recovery_token),
        )

    def _numbers(
        self,
        logits: torch.Tensor,
        choices: torch.Tensor,
        choice_probs: torch.Tensor,
        probs: torch.Tensor | None,
        outcome: TreeOutcome,
        numbers: torch.Tensor | None,
    ) -> torch.Tensor:
        """Side by side `[batch, 2 + nodes or 2 + 2 * nodes]`: the recovery token's probability and number, each node's
        probability under the target, under the draft. Of what was sampled from (greedy: softmax).
        """
        every = torch.arange(len(logits), device=logits.device)[:, None]
        at = (outcome.path.amax(1) + 1)[:, None]  # a path's numbers grow, and -1 fills it up
        rows = torch.cat([at, self.tree.parents + 1], 1)
        tokens = torch.cat([outcome.recovery_token[:, None], self.tokens], 1)
        if probs is None:  # a softmax is known by one of its values
            beside = logits[every, rows, tokens] - logits[every, rows, choices[every, rows]]
            target = beside.exp() * choice_probs[every, rows]
        else:
            target = probs[every, rows, tokens]
        coin = torch.zeros_like(target[:, :1])
        if numbers is not None:
            coin = numbers.gather(1, outcome.num_accepted[:, None])
        parts = [target[:, :1], coin, target[:, 1:], self.token_probs]
        return torch.cat([part.float() for part in parts if part is not None], 1)
