"""A draft worker on a CUDA stream of its own: what it queues runs beside the target's work, on this GPU or another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.execution.device_wait import wait_for
from ssd_lab.execution.packing import carried
from ssd_lab.execution.structure import flatten, unflatten
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
        self._arrivals = torch.cuda.Stream(device)
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
            self._hand_over(proposal.tensors(), torch.accelerator.current_stream())
            return proposal

        return Pending(answer)

    def look_up(self, lookup: Lookup) -> ForHits | None:
        """Queue the lookup behind the outcomes and the tree, and the caller's stream behind it. What it finds lies on
        the caller's device.
        """
        caller = torch.accelerator.current_stream()

        def hand_over(found: ForHits) -> ForHits:
            if caller.device != self._stream.device:
                return _carried(found, caller.device)
            self._answered.record()
            self._hand_over(found.proposal.tensors(), caller)
            return found

        with torch.cuda.stream(self._stream):
            return self._link.look_up(self._brought(lookup), hand_over)

    def start_ahead(self) -> None:
        """Queue the tree that is ready."""
        with torch.cuda.stream(self._stream):
            self._link.start_ahead()

    def _brought(self, lookup: Lookup) -> Lookup:
        """With its tensors on the draft's device. They come on a stream of their own, so that the tree that still grows
        does not hold them up.
        """
        decided, state = lookup.decided.here(), lookup.rows.state
        if decided.device == self._stream.device or not isinstance(state, StateOnDevice):
            return lookup
        with torch.cuda.stream(self._arrivals):
            tensors = carried([decided, state.tensor], self._stream.device)
        self._stream.wait_stream(self._arrivals)
        for tensor in tensors:
            tensor.record_stream(self._stream)
        rows = replace(lookup.rows, state=replace(state, tensor=tensors[1]))
        return replace(lookup, decided=DeviceTensor(tensors[0], None), rows=rows)

    def _hand_over(self, tensors: list[torch.Tensor], caller: torch.Stream) -> None:
        """What was made until `_answered` is read by the caller's stream: no memory of it is given away before that."""
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


def _carried(found: ForHits, device: torch.device) -> ForHits:
    """What was found, on another device."""
    own = found.proposal
    tensors, structure = flatten((own.tokens, own.probs, own.token_probs, own.raw_probs))
    tokens, probs, token_probs, raw_probs = unflatten(structure, carried(tensors, device))
    moved = replace(own, tokens=tokens, probs=probs, token_probs=token_probs, raw_probs=raw_probs)
    return replace(found, proposal=moved)
