"""The speculation cache: outcome -> the k draft tokens prepared for it."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.engine.phases.draft_tree import DraftTree


@dataclass(frozen=True)
class Entry:
    """Where a prepared continuation lies: `tree.drafted.tokens[row, branch]`."""

    tree: DraftTree
    row: int
    branch: int


class SpeculationCache:
    """Holds the branches of the latest tree. A new tree replaces the old one: an outcome is asked for once."""

    def __init__(self) -> None:
        self._tree: DraftTree | None = None
        self._branches: dict[int, tuple[int, dict[tuple[int, int], int]]] = {}

    def store(self, request_ids: list[int], tree: DraftTree) -> None:
        """Keep the branches of these sequences, row by row."""
        self._tree = tree
        self._branches = {}
        outcomes = zip(request_ids, tree.prefixes.tolist(), tree.recovery_tokens.tolist(), strict=True)
        for row, (request_id, prefixes, tokens) in enumerate(outcomes):
            keys = zip(prefixes, tokens, strict=True)
            self._branches[request_id] = (row, {key: branch for branch, key in enumerate(keys)})

    def clear(self) -> None:
        """Forget everything."""
        self._tree = None
        self._branches = {}

    def find(self, request_id: int, num_accepted: int, recovery_token: int) -> Entry | None:
        """The continuation prepared for this outcome, or None: a miss."""
        if self._tree is None or request_id not in self._branches:
            return None
        row, branches = self._branches[request_id]
        branch = branches.get((num_accepted, recovery_token))
        return None if branch is None else Entry(self._tree, row, branch)

    def find_nearest(self, request_id: int, num_accepted: int) -> Entry | None:
        """A continuation prepared for the same accepted length and another recovery token: stale, but at hand."""
        if self._tree is None or request_id not in self._branches:
            return None
        row, branches = self._branches[request_id]
        branch = next((index for (prefix, _), index in branches.items() if prefix == num_accepted), None)
        return None if branch is None else Entry(self._tree, row, branch)
