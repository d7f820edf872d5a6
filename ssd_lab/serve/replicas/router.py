"""Where a request goes: to a replica that has seen how its prompt begins, unless its queue is too long; else to the
shortest queue.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from ssd_lab.serve.replicas.prefixes import PrefixTable

SLACK = 4  # requests by which the queue of a replica that knows the prompt may be longer than the shortest


class PrefixRouter(RequestRouter):
    """Of each rank that it gives, Ray Serve takes the replica with the shortest queue."""

    def initialize_state(self) -> None:
        """Ray Serve calls this once."""
        self._prefixes, self._turn = PrefixTable(), count()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Those that know the beginning of the prompt, then all; of equal ones another comes first each time."""
        turn = next(self._turn) % len(candidate_replicas)
        everybody = [*candidate_replicas[turn:], *candidate_replicas[:turn]]
        if pending_request is None:
            return [everybody]
        pending_request.routing_context.should_backoff = True  # all queues being full, wait before asking again
        queues = {each.replica_id: self.replica_queue_len_cache.get(each.replica_id) or 0 for each in everybody}
        longest = min(queues.values()) + SLACK
        holders = self._prefixes.holders(_marks(pending_request))
        knowing = [each for each in everybody if each.replica_id in holders and queues[each.replica_id] <= longest]
        return [knowing, everybody]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """A replica took it, and will have its prompt's blocks."""
        self._prefixes.note(_marks(pending_request), replica_id)


def _marks(pending_request: PendingRequest) -> tuple[int, ...]:
    """What the front told beside the request."""
    marks: tuple[int, ...] = pending_request.kwargs.get("marks", ())
    return marks
