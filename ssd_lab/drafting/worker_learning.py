"""What a draft worker learns from rounds that are over: fan-out, fallback and lookahead."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ssd_lab.drafting.batch_control import DraftRound
from ssd_lab.drafting.draft_settings import DraftSettings
from ssd_lab.drafting.drafter import DraftRequest
from ssd_lab.drafting.fan_out_control import FanOutControl
from ssd_lab.drafting.lookahead_control import LookaheadControl
from ssd_lab.drafting.speculation_cache import SpeculationCache
from ssd_lab.drafting.tree_ahead import Growth
from ssd_lab.execution.host_copy import HostCopy
from ssd_lab.execution.stopwatch import DeviceSpan, Span
from ssd_lab.learning.fallback_choice import FallbackKind, FixedChoice, MeasuredRound
from ssd_lab.rounds.drawing import Drawing
from ssd_lab.rounds.rows import RowBatch


@dataclass
class RoundLog:
    """What is remembered of a round until its outcome is known.

    shape: what its work depended on; missed: requests whose outcome was looked up and not found; kind: by which
    fallback they were answered (None: by none, or not all by the same). fallback, ahead: when the draft answered them
    (in synchronous drafting: all), and when it worked ahead. confidences: the draft's probability of each draft token,
    if somebody wants to know.
    """

    request_ids: list[int]
    shape: Hashable
    missed: list[int]
    kind: FallbackKind | None
    fallback: Span | None
    confidences: HostCopy | None
    ahead: Span | None = None

    def measured(self, asked: DraftRound) -> MeasuredRound | None:
        """With what the next round tells of it; None if that is not all."""
        accepted = asked.accepted
        if asked.message.round_s is None or any(own not in accepted for own in self.request_ids):
            return None
        return MeasuredRound(
            batch=len(self.request_ids),
            missed=len(self.missed),
            kind=self.kind,
            tokens=sum(accepted[own] + 1 for own in self.request_ids),
            missed_tokens=sum(accepted[own] + 1 for own in self.missed),
            round_s=asked.message.round_s,
            fallback_s=seconds(self.fallback),
        )


class WorkerLearning:
    """All that rounds teach, so that it can be copied. fan_out: None where nothing is prepared."""

    def __init__(self, plan: DraftSettings) -> None:
        self.fan_out = None if plan.fan_out is None else FanOutControl(plan.fan_out)
        self.rule = FixedChoice("jit") if plan.fallback is None else plan.fallback.chooser()
        self.lookahead = LookaheadControl(plan.lookahead, plan.k, overlapped=plan.fan_out is not None)
        self.k = self.lookahead.choose()  # draft tokens of the next round; a tree's branches have as many
        self.keeps_probs = plan.record or self.lookahead.learns
        self._plan = plan
        self._rule_learns = plan.fallback is not None and plan.fallback.learns

    @property
    def draws_by_fan_out(self) -> bool:
        """Are draft tokens drawn so that what they leave over is prepared for?"""
        return self.fan_out is not None and self._plan.saguaro_c != 1.0

    def request(self, k: int, *, after_hit: bool) -> DraftRequest:
        """How to draw k tokens for a round that begins with a hit, or with a fallback."""
        temperature, coefficient, fan_out = self._plan.draft_temperature, self._plan.saguaro_c, self.fan_out
        if fan_out is None or coefficient == 1.0:
            return DraftRequest(Drawing(temperature, record=self.keeps_probs))
        drawing = Drawing(
            temperature, coefficient, fan_out.widest(k), record=self.keeps_probs, keeps_raw=self._plan.details
        )
        return DraftRequest(drawing, fan_out.counts(after_hit, k)[:k])

    def foresees_stale(self, rows: int) -> bool:
        """Are the next misses answered by stale branches, however many there are, so that a lookup can find them?"""
        fallback = self._plan.fallback
        return fallback is not None and fallback.guesses == "stale" and self.rule.foreseen(rows) == "fast"

    def growth(self, fan_out: FanOutControl, hits: Sequence[bool], rows: RowBatch, k: int) -> Growth:
        """Of the tree of a round that verifies k tokens of these rows, by what is known now."""
        depth = self.lookahead.choose()
        counts = fan_out.listed(hits, rows.sampled, k)
        return Growth(counts, fan_out.shape(k, depth), self.request(depth, after_hit=True))

    def round_over(self, log: RoundLog, asked: DraftRound) -> None:
        """The next round tells how long this one took, and how many tokens were accepted."""
        measured = log.measured(asked) if self._rule_learns else None
        if measured is not None:
            self.rule.observe(measured)
        if self.lookahead.learns:
            self._learn_lookahead(log, asked)

    def outcomes(self, asked: DraftRound, cache: SpeculationCache) -> list[float | None]:
        """Learn from each row's outcome; returns how likely its hit was thought to be."""
        if self.fan_out is None:
            return [None] * len(asked.rows)
        each = zip(asked.request_ids, asked.num_accepted, asked.rows.last_tokens, strict=True)
        return [
            None if accepted is None else self._outcome(cache, own, accepted, token) for own, accepted, token in each
        ]

    def keep_for_later(self, asked: DraftRound, cache: SpeculationCache) -> None:
        """Have the cache keep what was prepared for sequences that are away now."""
        for request_id, (accepted, token) in asked.message.away.items():
            if self.fan_out is not None and cache.prepared(request_id) is not None and cache.kept(request_id) is None:
                cache.keep(request_id, accepted, token, self._outcome(cache, request_id, accepted, token))

    def _outcome(self, cache: SpeculationCache, request_id: int, num_accepted: int, token: int) -> float | None:
        """What was kept has taught its part already."""
        if (kept := cache.kept(request_id)) is not None:
            return kept.predicted
        prepared = cache.prepared(request_id)
        if prepared is None or self.fan_out is None:
            return None
        return self.fan_out.observe(request_id, prepared, num_accepted, token)

    def _learn_lookahead(self, log: RoundLog, asked: DraftRound) -> None:
        accepted = asked.accepted
        known = [row for row, own in enumerate(log.request_ids) if own in accepted]
        if asked.message.round_s is None or log.confidences is None or not known:
            return
        confidences = log.confidences.arrays()[0]
        waited_s = seconds(log.fallback)  # the target waits for a fallback, and for a synchronous draft
        self.lookahead.observe(
            log.shape,
            [confidences[row].tolist() for row in known],
            [accepted[log.request_ids[row]] for row in known],
            verify_s=max(asked.message.round_s - waited_s, 1e-6),
            draft_s=waited_s if self.fan_out is None else seconds(log.ahead),
        )


def seconds(span: Span | None) -> float:
    """How long it took; waits for its end."""
    if span is None:
        return 0.0
    activity = span.resolve() if isinstance(span, DeviceSpan) else span
    return activity.end_s - activity.start_s
