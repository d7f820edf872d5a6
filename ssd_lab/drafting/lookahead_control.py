"""How many draft tokens the next round gets, where that is chosen while running."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ssd_lab.learning.lookahead import LookaheadChooser

MEASURED_FIRST = 2  # rounds of either lookahead before the choice begins


class LookaheadControl:
    """k of each round: always the most if there is no `source`, else chosen from confidence and measured times.

    To know what a draft token costs two lookaheads are tried first, the most and half of it. The first round of each
    shape tells no time: on a GPU its graphs are made in it.
    """

    def __init__(self, source: type[LookaheadChooser] | None, most: int, *, overlapped: bool) -> None:
        self._source, self._most, self._overlapped = source, most, overlapped
        self._chooser: LookaheadChooser | None = None
        self._measured = 0
        self._known: set[Hashable] = set()

    @property
    def learns(self) -> bool:
        """Does it want to hear of rounds?"""
        return self._source is not None and self._most > 1

    def choose(self) -> int:
        """k of the next round."""
        if not self.learns:
            return self._most
        if self._chooser is None or self._measured < 2 * MEASURED_FIRST:
            return self._most if self._measured < MEASURED_FIRST else max(1, self._most // 2)
        return self._chooser.choose()

    def observe(
        self,
        shape: Hashable,
        confidences: Sequence[Sequence[float]],
        num_accepted: Sequence[int],
        *,
        verify_s: float,
        draft_s: float,
    ) -> None:
        """A round is over: of each sequence the draft's probability of its tokens and how many were kept; seconds of
        the verification and of the drafting.
        """
        if self._source is None or not confidences:
            return
        if shape not in self._known:
            self._known.add(shape)
            return
        self._measured += 1
        if self._chooser is None:
            step_s = draft_s / len(confidences[0])
            self._chooser = self._source(self._most, verify_s=verify_s, step_s=step_s, overlapped=self._overlapped)
        for own, accepted in zip(confidences, num_accepted, strict=True):
            self._chooser.observe(own, accepted, verify_s=verify_s, draft_s=draft_s)
