"""Where a request goes: to a replica that has seen how its prompt begins, unless its queue is too long; else to the
shortest queue.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from ssd_lab.serve.replicas.prefixes import PrefixTable

ANSWER_S = 1.0  # longest that a replica may take to tell the length of its queue
SLACK = 4  # requests by which the queue of a replica that knows the prompt may be longer than the shortest


class PrefixRouter(RequestRouter):
    """Ray Serve takes the first replica of its list that answers."""

    queue_len_response_deadline_s = ANSWER_S  # the default, 0.1, is too short for a machine that computes

    def initialize_state(self, **_: Any) -> None:
        """Ray Serve calls this once."""
        self._prefixes, self._turn = PrefixTable(), count()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Those that know the beginning of the prompt, then all; either from the shortest queue on. Of equal ones
        another comes first each time.
        """
        queues = {
            each.replica_id: self.replica_queue_len_cache.get(each.replica_id) or 0 for each in candidate_replicas
        }
        turn = next(self._turn) % len(candidate_replicas)
        in_turn = [*candidate_replicas[turn:], *candidate_replicas[:turn]]
        everybody = sorted(in_turn, key=lambda each: queues[each.replica_id])
        if pending_request is None:
            return [[each] for each in everybody]
        pending_request.routing_context.should_backoff = True  # all queues being full, wait before asking again
        longest = min(queues.values()) + SLACK
        holders = self._prefixes.holders(_marks(pending_request))
        knowing = [each for each in everybody if each.replica_id in holders and queues[each.replica_id] <= longest]
        return [[each] for each in (*knowing, *everybody)]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """A replica took it, and will have its prompt's blocks."""
        self._prefixes.note(_marks(pending_request), replica_id)


def _marks(pending_request: PendingRequest) -> tuple[int, ...]:
    """What the front told beside the request."""
    marks: tuple[int, ...] = pending_request.kwargs.get("marks", ())
    return marks
