"""Lookahead chosen while running, on rounds that were recorded with a longer one: how long the chooser makes them on a
machine's clock, and what of their tokens is kept then.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from ssd_lab.learning.lookahead import LookaheadChooser
from ssd_lab.simulate import HardwareProfile
from ssd_lab.trace import RoundRecord, SequenceRound, Trace


def replay_lookahead(
    rounds: Sequence[SequenceRound], profile: HardwareProfile, *, most: int, batch: int, count: int, seed: int = 0
) -> Trace:
    """`count` rounds of `batch` sequences, each drawn from `rounds`, cut to the k that the chooser takes: a shorter
    draft is the beginning of a longer one.

    rounds: of a draft model, each of at least `most` tokens.
    """
    generator = random.Random(seed)
    step_s = profile.draft_step_s.at(batch)

    def verify_s(k: int) -> float:
        return profile.verify_s.at(batch * (k + 1)) + profile.overhead_s

    chooser = LookaheadChooser(most, verify_s=verify_s(most), step_s=step_s, overlapped=False)
    made = []
    for index in range(count):
        k = chooser.choose()
        rows = [_cut(generator.choice(rounds), k, request_id) for request_id in range(batch)]
        for row in rows:
            chooser.observe(row.draft_probs, row.num_accepted, verify_s=verify_s(k), draft_s=k * step_s)
        made.append(RoundRecord(index, index, index + 1, rows))
    return Trace({}, rounds=made)


def _cut(own: SequenceRound, k: int, request_id: int) -> SequenceRound:
    accepted = min(own.num_accepted, k)
    return replace(
        own,
        request_id=request_id,
        draft_tokens=own.draft_tokens[:k],
        draft_probs=own.draft_probs[:k],
        target_probs=own.target_probs[:k],
        num_accepted=accepted,
        num_emitted=accepted + 1,
        origin="draft",
    )
