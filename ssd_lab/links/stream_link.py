"""A draft worker on a CUDA stream of its own: what it queues runs beside the target's work, on this GPU or another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.execution.device_wait import wait_for
from ssd_lab.links.link import InlineLink, Link, Pending
from ssd_lab.links.messages import Lookup, Message, RoundMessage
from ssd_lab.links.worker import Worker
from ssd_lab.rounds.proposal import ForHits, Proposal
from ssd_lab.rounds.rows import StateOnDevice


class StreamLink(Link):
    """The worker runs in the caller's thread, but its kernels are queued on the draft's stream.

    priority: of the stream; lower numbers go first where both streams have blocks to start.
    """

    looks_up = True

    def __init__(self, make_worker: Callable[[], Worker], device: torch.device, *, priority: int = 0) -> None:
        super().__init__()
        self._stream = torch.cuda.Stream(device, priority=priority)
        self._stream.wait_stream(torch.cuda.current_stream(device))  # the model may have been loaded just now
        with torch.cuda.stream(self._stream):
            self._link = InlineLink(make_worker())
        self._answered = torch.Event("cuda")

    def post(self, message: Message) -> None:
        """Queue the message's work."""
        with torch.cuda.stream(self._stream):
            self._link.post(message)

    def ask(self, message: RoundMessage) -> Pending:
        """Queue the round's work. Whoever takes the answer has its stream wait for it, and does not wait itself."""
        with torch.cuda.stream(self._stream):
            pending = self._link.ask(message)
            self._answered.record()

        def answer(timeout_s: float) -> Proposal:
            proposal = pending.answer(timeout_s)
            self._hand_over(proposal.tensors())
            return proposal

        return Pending(answer)

    def look_up(self, lookup: Lookup) -> ForHits | None:
        """Queue the lookup behind the outcomes and the tree, and the caller's stream behind it. What the host will read
        lies on the caller's device: a copy to the host is queued on a stream of the device that it comes from.
        """
        with torch.cuda.stream(self._stream):
            found = self._link.look_up(self._brought(lookup))
            self._answered.record()
        if found is None:
            return None
        self._hand_over([found.answered, *found.proposal.tensors()])
        here = torch.device("cuda", torch.cuda.current_device())
        return replace(found, answered=found.answered.to(here, non_blocking=True))

    def start_ahead(self) -> None:
        """Queue the tree that is ready."""
        with torch.cuda.stream(self._stream):
            self._link.start_ahead()

    def _brought(self, lookup: Lookup) -> Lookup:
        """With its tensors on the draft's device."""
        decided, state = lookup.decided.here(), lookup.rows.state
        if decided.device == self._stream.device or not isinstance(state, StateOnDevice):
            return lookup
        own = replace(state, tensor=state.tensor.to(self._stream.device, non_blocking=True))
        here = DeviceTensor(decided.to(self._stream.device, non_blocking=True), None)
        return replace(lookup, decided=here, rows=replace(lookup.rows, state=own))

    def _hand_over(self, tensors: list[torch.Tensor]) -> None:
        """What was made until `_answered` is read by the caller's stream: no memory of it is given away before that."""
        caller = torch.accelerator.current_stream()
        self._answered.wait(caller)
        for tensor in tensors:
            tensor.record_stream(caller)

    def work_ahead(self) -> None:
        """Queue the tree."""
        with torch.cuda.stream(self._stream):
            self._link.work_ahead()

    def close(self) -> None:
        """Wait for what is queued and drop the worker."""
        try:
            if not self.is_forked:
                wait_for(self._stream.record_event(), "what was queued for the draft")
        finally:  # after an error of the device too
            self._link.close()
