"""Which of several drafts drafts for which request: for as long as the request lives, and about equally many each."""

from __future__ import annotations

from collections.abc import Collection


class RequestShares:
    """Requests by id, drafts by number."""

    def __init__(self) -> None:
        self._draft: dict[int, int] = {}

    def of(self, request_id: int) -> int | None:
        """The request's draft, if it has one."""
        return self._draft.get(request_id)

    def give(self, request_id: int, drafts: Collection[int]) -> int:
        """Give the request to that of these drafts which has the fewest, the first of several."""
        self._draft[request_id] = chosen = min(sorted(drafts), key=self.count)
        return chosen

    def count(self, draft: int) -> int:
        """How many requests a draft has."""
        return list(self._draft.values()).count(draft)

    def forget(self, request_id: int) -> None:
        """The request has ended."""
        self._draft.pop(request_id, None)

    def release(self, draft: int) -> None:
        """The draft is gone: its requests have none."""
        self._draft = {request_id: own for request_id, own in self._draft.items() if own != draft}

    def overloaded(self, drafts: Collection[int]) -> int | None:
        """The draft with the most requests, if another of these has fewer by two or more."""
        counts = {draft: self.count(draft) for draft in sorted(drafts)}
        most = max(counts, key=lambda draft: counts[draft])
        return most if counts[most] - min(counts.values()) >= 2 else None
