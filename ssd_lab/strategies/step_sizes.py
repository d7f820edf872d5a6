"""How large the steps of a strategy are, for each sequence of a batch: what a memory plan and a dry run go by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepSizes:
    """lookahead: draft tokens that the target verifies at once. chain: tokens that a draft model decodes one after
    another (0: there is none). branches: of the draft's tree, computed together. depth: tokens of each branch.
    """

    lookahead: int
    chain: int = 0
    branches: int = 0
    depth: int = 0

    @property
    def draft_rows(self) -> int:
        """Rows of the draft's largest step: the extension over the tokens under verification, or all branches."""
        return max(self.chain + 1, self.branches)

    @property
    def scratch_positions(self) -> int:
        """KV positions of the branches."""
        return self.branches * self.depth

    @property
    def kept_distributions(self) -> int:
        """Distributions over the vocabulary that the draft's phases hand out in a round that samples."""
        return max(self.chain, self.branches * self.depth)

    def joined(self, other: StepSizes) -> StepSizes:
        """Of two strategies that take turns."""
        own, others = vars(self), vars(other)
        return StepSizes(**{name: max(own[name], others[name]) for name in own})
