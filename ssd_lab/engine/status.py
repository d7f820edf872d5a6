"""How an engine stands between two steps: queues, blocks and the counts since it was made."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.trace.totals import Totals


@dataclass(frozen=True)
class EngineStatus:
    """waiting, running: requests. num_blocks, free_blocks: of the KV cache, and how many of them no request holds.
    preemptions: how often a request gave up its blocks. totals: of all requests, a copy. degraded: why the draft was
    given up, if it was.
    """

    waiting: int
    running: int
    num_blocks: int
    free_blocks: int
    preemptions: int
    totals: Totals
    degraded: str | None = None
