"""What a draft worker knows of the batch: told when it changes, and put together with each round's message there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ssd_lab.errors import DraftWorkerError
from ssd_lab.links.messages import NO_OUTCOME, ControlMessage, RequestControl, RoundMessage
from ssd_lab.rounds.rows import RowBatch
from ssd_lab.rounds.sequence import Sequence


class ControlSender:
    """The engine's side: remembers what the worker was told, and finds what is new. sends_texts: the worker looks at
    the texts themselves.

    What was being sent when Ctrl-C came may have arrived or not: the next message then tells everything anew.
    """

    def __init__(self, *, sends_texts: bool) -> None:
        self._sends_texts = sends_texts
        self._number = 0
        self._arrived = False
        self._request_ids: list[int] = []
        self._told: dict[int, RequestControl] = {}
        self._text_lengths: dict[int, int] = {}

    @property
    def number(self) -> int:
        """Of the latest message."""
        return self._number

    def change(self, sequences: list[Sequence], rows: RowBatch) -> ControlMessage | None:
        """What is new since the last round of this worker, None if nothing is. `arrived` must be called once this and
        the round's message are sent.
        """
        whole, self._arrived = not self._arrived, False
        told = {} if whole else self._told
        request_ids = [sequence.request_id for sequence in sequences]
        own: dict[int, RequestControl] = {}
        new: dict[int, RequestControl] = {}
        grown: dict[int, list[int]] = {}
        for request_id, table, sampling in zip(request_ids, rows.block_tables, rows.sampling, strict=True):
            before = told.get(request_id)
            if before is not None and before.block_table == table and before.sampling == sampling:
                own[request_id] = before
                continue
            own[request_id] = now = RequestControl(list(table), sampling)  # a table grows while the worker is at work
            if before is not None and _is_grown(now, before):
                grown[request_id] = table[len(before.block_table) :]
            else:
                new[request_id] = now
        if not new and not grown and request_ids == self._request_ids:
            return None
        if self._sends_texts:
            new = self._with_texts(new, sequences)
        self._request_ids, self._told = request_ids, own
        self._number += 1
        return ControlMessage(self._number, request_ids, new, grown, whole)

    def _with_texts(self, new: dict[int, RequestControl], sequences: list[Sequence]) -> dict[int, RequestControl]:
        """Texts of those that are new."""
        texts = {s.request_id: list(s.token_ids) for s in sequences if s.request_id in new}
        lengths = {s.request_id: self._text_lengths.get(s.request_id, 0) for s in sequences}
        self._text_lengths = lengths | {request_id: len(text) for request_id, text in texts.items()}
        return {request_id: replace(now, text=texts[request_id]) for request_id, now in new.items()}

    def new_tokens(self, sequences: list[Sequence]) -> torch.Tensor | None:
        """What was added to each text since the worker was told of it, `[batch, n]`, then zeros; None if it does not
        look at texts.
        """
        if not self._sends_texts:
            return None
        new = [sequence.token_ids[self._text_lengths[sequence.request_id] :] for sequence in sequences]
        self._text_lengths |= {sequence.request_id: len(sequence.token_ids) for sequence in sequences}
        longest = max(map(len, new))
        return torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in new], dtype=torch.int64)

    def arrived(self) -> None:
        """What was told last is sent."""
        self._arrived = True


@dataclass(frozen=True)
class DraftRound:
    """A round as a worker sees it: the message, and the rows that it is about. texts: all tokens of each, where the
    plan asks for them.
    """

    message: RoundMessage
    request_ids: list[int]
    rows: RowBatch
    texts: list[list[int]] | None

    @cached_property
    def num_accepted(self) -> list[int | None]:
        """Accepted length of each row, None where there is no outcome to look up."""
        return [None if accepted == NO_OUTCOME else accepted for accepted in self.message.num_accepted.tolist()]

    @cached_property
    def accepted(self) -> dict[int, int]:
        """The same by request id, with requests of the round before that are in this one no more."""
        own = zip(self.request_ids, self.num_accepted, strict=True)
        return {request_id: accepted for request_id, accepted in own if accepted is not None} | self.message.elsewhere


class ControlReader:
    """The worker's side."""

    def __init__(self) -> None:
        self._number = 0
        self._request_ids: list[int] = []
        self._requests: dict[int, RequestControl] = {}
        self._texts: dict[int, list[int]] = {}

    def read(self, message: ControlMessage) -> None:
        """Take in a change. Raises DraftWorkerError if the one before is missing."""
        if not message.whole and message.number != self._number + 1:
            raise DraftWorkerError(
                f"control message {message.number} came after number {self._number}: one that says who is in the batch "
                "was lost"
            )
        requests = dict(message.new) if message.whole else self._requests | message.new
        for request_id, blocks in message.grown.items():
            before = requests[request_id]
            requests[request_id] = replace(before, block_table=[*before.block_table, *blocks])
        texts = self._texts | {own: list(now.text) for own, now in message.new.items() if now.text is not None}
        self._number, self._request_ids = message.number, message.request_ids
        self._requests = {own: requests[own] for own in message.request_ids}
        self._texts = {own: texts[own] for own in message.request_ids if own in texts}

    def round(self, message: RoundMessage) -> DraftRound:
        """The round of this message. Raises DraftWorkerError if it goes by a control message that did not come."""
        if message.control != self._number:
            raise DraftWorkerError(
                f"a round goes by control message {message.control}, and number {self._number} was the latest to come: "
                "one that says who is in the batch was lost"
            )
        own = [self._requests[request_id] for request_id in self._request_ids]
        rows = RowBatch(message.state, [now.block_table for now in own], [now.sampling for now in own])
        return DraftRound(message, self._request_ids, rows, self._grown(rows, message.new_tokens))

    def _grown(self, rows: RowBatch, new_tokens: torch.Tensor | None) -> list[list[int]] | None:
        """The texts, each longer by the round's new tokens."""
        if new_tokens is None:
            return None
        for own, length, tokens in zip(self._request_ids, rows.lengths, new_tokens.tolist(), strict=True):
            text = self._texts[own]
            text += tokens[: length - len(text)]
        return [self._texts[own] for own in self._request_ids]


def _is_grown(now: RequestControl, before: RequestControl) -> bool:
    """Is all that changed that blocks were added?"""
    return now.sampling == before.sampling and now.block_table[: len(before.block_table)] == before.block_table
