"""The speculation cache: outcome -> the k draft tokens prepared for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ssd_lab.engine.host_copy import HostCopy
from ssd_lab.engine.phases.draft_tree import DraftTree


@dataclass(frozen=True)
class Entry:
    """Where a prepared continuation lies: `tree.drafted.tokens[row, branch]`."""

    row: int
    branch: int


class SpeculationCache:
    """Holds the branches of the latest tree. A new tree replaces the old one: an outcome is asked for once.

    Of a tree that is still growing on a device only the recovery tokens are waited for, and only when asked for.
    """

    def __init__(self) -> None:
        self.tree: DraftTree | None = None
        self._waiting: tuple[Sequence[int], Sequence[Sequence[int]], HostCopy] | None = None
        self._branches: dict[int, tuple[int, dict[tuple[int, int], int]]] = {}

    def store(self, request_ids: Sequence[int], prefixes: Sequence[Sequence[int]], tree: DraftTree) -> None:
        """Keep the branches of these sequences, row by row; prefixes: the accepted length that each branch assumes."""
        self.tree = tree
        self._waiting = (request_ids, prefixes, HostCopy(tree.recovery_tokens))

    def find(self, request_id: int, num_accepted: int, recovery_token: int) -> Entry | None:
        """The continuation prepared for this outcome, or None: a miss."""
        row, branches = self._of(request_id)
        branch = branches.get((num_accepted, recovery_token))
        return None if branch is None else Entry(row, branch)

    def find_nearest(self, request_id: int, num_accepted: int) -> Entry | None:
        """A continuation prepared for the same accepted length and another recovery token: stale, but at hand."""
        row, branches = self._of(request_id)
        branch = next((index for (prefix, _), index in branches.items() if prefix == num_accepted), None)
        return None if branch is None else Entry(row, branch)

    def _of(self, request_id: int) -> tuple[int, dict[tuple[int, int], int]]:
        if self._waiting is not None:
            request_ids, prefixes, copy = self._waiting
            self._waiting = None
            (tokens,) = copy.arrays()
            self._branches = {
                own: (row, {outcome: branch for branch, outcome in enumerate(zip(lengths, candidates, strict=True))})
                for row, (own, lengths, candidates) in enumerate(
                    zip(request_ids, prefixes, tokens.tolist(), strict=False)  # padding rows have no request
                )
            }
        return self._branches.get(request_id, (0, {}))
