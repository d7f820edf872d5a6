"""Rounds of one sequence, for tests that drive a draft worker over its link."""

from __future__ import annotations

from typing import Any

import torch

from ssd_lab.links.link import Link, Pending
from ssd_lab.links.messages import NO_OUTCOME, ControlMessage, RequestControl, RoundMessage
from ssd_lab.rounds.rows import KnownState

GREEDY, WARM = (0.0, 0, 1.0, 0.0, 1), (1.0, 0, 1.0, 0.0, 7)
TABLE = [1, 2, 3]


def control_of(sampling: Any = GREEDY, text: list[int] | None = None, number: int = 1) -> ControlMessage:
    """One sequence is all there is, whatever was said before."""
    return ControlMessage(number, [0], {0: RequestControl(TABLE, sampling, text)}, whole=True)


def round_of(length: int, last: int, num_accepted: int | None, previous: int = 40, **fields: Any) -> RoundMessage:
    """A round of a sequence of so many tokens, its last two, and its accepted length."""
    accepted = torch.tensor([NO_OUTCOME if num_accepted is None else num_accepted])
    return RoundMessage(
        **{"control": 1, **fields}, state=KnownState.of([length], [previous], [last]), num_accepted=accepted
    )


def asked(link: Link, message: RoundMessage, sampling: Any = GREEDY) -> Pending:
    """The round is asked of a worker that may have heard of no sequence yet."""
    link.post(control_of(sampling))
    return link.ask(message)
