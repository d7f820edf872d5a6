"""Ray Serve's router of requests: it asks `Routing`, and tells it what was sent and what has ended."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from ssd_lab.serve.replicas.routing import Routing


class PrefixRouter(RequestRouter):
    """Ray Serve takes the first replica of its list whose queue it knows to have room."""

    def initialize_state(self, **_: Any) -> None:
        """Ray Serve calls this once."""
        self._routing = Routing()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The one to be asked first.

        Ray Serve forgets the length of a queue after 10 s, however long its requests take, and then asks the replica,
        which may compute and not answer in time: what is under way is counted here instead.
        """
        by_id = {each.replica_id: each for each in candidate_replicas}
        marks: tuple[int, ...] = () if pending_request is None else pending_request.kwargs.get("marks", ())
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # all queues being full, wait before asking again
        chosen = self._routing.order(marks, list(by_id))
        for replica_id in chosen:
            self.replica_queue_len_cache.update(replica_id, self._routing.under_way[replica_id])
        return [[by_id[replica_id]] for replica_id in chosen]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Ray Serve sends it something."""
        super().on_send_request(replica_id)
        self._routing.sent(replica_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """That has ended, one way or another."""
        super().on_request_completed(replica_id, internal_request_id)
        self._routing.ended(replica_id)
