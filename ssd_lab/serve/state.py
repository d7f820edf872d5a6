"""What a running server knows of itself: whether it takes requests, those that are under way, and the latest."""

from __future__ import annotations

import asyncio
from functools import cached_property

from ssd_lab.serve.answering import Answering, AnsweringObserver, Mailbox
from ssd_lab.serve.config import ServeConfig
from ssd_lab.serve.errors import ApiError
from ssd_lab.serve.live import LiveRequests
from ssd_lab.serve.metrics import ServerMetrics
from ssd_lab.serve.served import Served, ServedModels


class ServerState(AnsweringObserver):
    """Of the event loop. engine: what numbers tell replicas apart by."""

    def __init__(self, models: ServedModels, config: ServeConfig, engine: str = "0") -> None:
        self.models, self.config = models, config
        self.metrics = ServerMetrics(models, engine)
        self.live = LiveRequests(config.recent if config.page else 0)
        self.is_stopping = False

    @cached_property
    def mailbox(self) -> Mailbox:
        """Between the engines and the event loop that asks for it first."""
        return Mailbox(asyncio.get_running_loop())

    @property
    def under_way(self) -> int:
        """Texts that no engine is done with."""
        return self.models.under_way

    def check_open(self) -> None:
        """Raise ApiError (503) if no request is taken any more."""
        if self.is_stopping:
            headers = {"Retry-After": "5"}
            raise ApiError(503, "the server is stopping: ask another one", code="stopping", headers=headers)

    def check_alive(self) -> None:
        """Raise ApiError (503) if an engine's thread has ended."""
        for model in self.models:
            model.check_alive()

    def open_for(self, name: str) -> Served:
        """The model of that name, for a request. Raises ApiError."""
        self.check_open()
        found = self.models.find(name)
        found.check_alive()
        return found

    def cancel_running(self) -> None:
        """End what is left of every request: the clients are told."""
        for answering in self.live.running():
            answering.cancel()

    def abandon_running(self) -> None:
        """Tell their clients so: an engine hangs."""
        for answering in self.live.running():
            answering.abandon()

    def piece(self, answering: Answering, gap_s: float) -> None:
        """A text went on."""
        self.metrics.piece(answering.served.name, gap_s)

    def ended(self, answering: Answering) -> None:
        """An engine is done with a request."""
        self.metrics.ended(answering)
        self.live.ended()
        submission = answering.submission
        if submission is not None:
            answering.noted |= {
                "prompt_tokens": sum(len(request.prompt_ids) for request in submission.requests),
                "output_tokens": sum(len(sequence.output_ids) for sequence in submission.sequences),
                "finish": [sequence.finish_reason for sequence in submission.sequences],
            }
