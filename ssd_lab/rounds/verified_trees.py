"""The trees of a verified round, on the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssd_lab.rounds.alternatives import Alternatives
from ssd_lab.trace.records import TreeRecord


@dataclass(frozen=True)
class VerifiedTrees:
    """tokens, parents, valid `[batch, nodes]`; draft_probs, target_probs likewise, of what each node was drawn from and
    verified against (None: not recorded). tried: what stood where a node was tried, its earlier siblings refused; coins
    `[batch, nodes]`, -1 where none decided (None: not recorded).
    """

    tokens: np.ndarray
    parents: np.ndarray
    valid: np.ndarray
    draft_probs: np.ndarray | None
    target_probs: np.ndarray | None
    tried: Alternatives | None = None
    coins: np.ndarray | None = None

    def chain(self, row: int, path: list[int]) -> list[int]:
        """The accepted path, followed by first children down to a leaf: the chain that the round comes to."""
        parents, valid = self.parents[row].tolist(), self.valid[row].tolist()
        chain = list(path)
        at = path[-1] if path else -1
        for node in range(at + 1, len(parents)):  # children come after their parents
            if parents[node] == at and valid[node]:
                chain.append(node)
                at = node
        return chain

    @staticmethod
    def along(chains: list[list[int]], numbers: np.ndarray, depth: int) -> np.ndarray:
        """Each row's `numbers` `[batch, nodes]` along its chain, `[batch, depth]`, padded with 0."""
        taken = np.zeros((len(chains), depth), numbers.dtype)
        for row, chain in enumerate(chains):
            taken[row, : len(chain)] = numbers[row, chain]
        return taken

    def record(self, row: int) -> TreeRecord:
        """The tree of one row; nodes that stand for nothing are left out."""
        kept = np.flatnonzero(self.valid[row])
        place = {-1: -1, **{int(node): index for index, node in enumerate(kept)}}
        nodes = kept.tolist()
        return TreeRecord(
            tokens=self.tokens[row, nodes].tolist(),
            parents=[place[parent] for parent in self.parents[row, nodes].tolist()],
            draft_probs=[1.0] * len(nodes) if self.draft_probs is None else self.draft_probs[row, nodes].tolist(),
            target_probs=None if self.target_probs is None else self.target_probs[row, nodes].tolist(),
            alternatives=None if self.tried is None else [self.tried.position(row, node) for node in nodes],
            coins=None if self.coins is None or (self.coins[row] < 0).all() else self.coins[row, nodes].tolist(),
        )
