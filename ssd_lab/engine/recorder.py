"""Hands what happens in the engine to the recordings of those whose requests it happened to."""

from __future__ import annotations

import time
import weakref
from collections import deque
from typing import Any

from ssd_lab.engine.recording import Recording
from ssd_lab.engine.round_records import KeptRound, RoundTimes
from ssd_lab.execution.preparations import Preparations
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.rounds.verified import Verified
from ssd_lab.trace.records import Activity
from ssd_lab.trace.totals import Totals

REMEMBERED = 256  # rounds whose tree may still come; without the rounds themselves this is next to nothing


class Recorder:
    """Knows who records which request, and itself keeps no round: what nobody records is gone at once.

    unclaimed: the recording of requests for which none was given. totals: of all requests, whoever recorded them.
    record: keep rounds, not only totals. preparations: what target and draft capture and compile, whoever caused it.
    """

    def __init__(self, meta: dict[str, Any], *, record: bool, vocab_size: int, preparations: Preparations) -> None:
        self._preparations = preparations
        self._meta = dict(meta)
        self._vocab_size = vocab_size
        self._record = record
        self._recordings: dict[int, Recording] = {}  # by request id, of requests that have not ended
        self._recent: deque[weakref.ref[KeptRound]] = deque(maxlen=REMEMBERED)
        self.unclaimed = self.recording()
        self.totals = Totals()

    def recording(self) -> Recording:
        """A new one, of no request yet."""
        return Recording(self._meta, self._vocab_size, self._preparations)

    def follow(self, request_id: int, recording: Recording | None) -> None:
        """A request begins, recorded there."""
        self._recordings[request_id] = self.unclaimed if recording is None else recording

    def now_s(self) -> float:
        """Seconds of the monotonic clock, which all moments and activities are told by."""
        return time.perf_counter()

    def note(self, key: str, value: Any) -> None:
        """Remember something about the engine, for every trace from now on."""
        self._meta[key] = value

    def note_more(self, key: str, value: Any) -> None:
        """The same, behind what was noted under this key before."""
        self._meta[key] = [*self._meta.get(key, []), value]

    def noted(self, key: str) -> Any:
        """What was remembered, None if nothing was."""
        return self._meta.get(key)

    def recordings_of(self, sequences: list[Sequence]) -> list[Recording]:
        """Where these requests are recorded, each once."""
        return list({id(own): own for own in (self._recordings[one.request_id] for one in sequences)}.values())

    def prefill(self, prefill: Activity, recordings: list[Recording]) -> None:
        """Prompt chunks of requests that are recorded there were computed, together."""
        preparation_s = self._preparations.seconds(prefill.start_s, prefill.end_s)
        self.totals.add_prefill(prefill.end_s - prefill.start_s, preparation_s=preparation_s)
        for recording in recordings:
            recording.count_prefill(prefill, preparation_s)
            if self._record:
                recording.keep_prefill(prefill)

    def round(
        self,
        sequences: list[Sequence],
        lengths: list[int],
        proposal: Proposal,
        verified: Verified,
        rows: list[int],
        emitted: list[int],
        times: RoundTimes,
    ) -> None:
        """A round is over; `emitted[i]` tokens of sequence i entered its text. rows: those that count, of requests that
        had not ended when it was launched.
        """
        kept = KeptRound(
            request_ids=[sequence.request_id for sequence in sequences],
            lengths=lengths,
            origins=proposal.origins,
            cache_hits=proposal.cache_hits,
            predicted_hits=proposal.predicted_hits,
            verified=verified,
            emitted=emitted,
            times=times,
            spans=proposal.activities,
            preparation_s=self._preparations.seconds(times.start_s, times.end_s),
        )
        for tree in proposal.previous_trees:
            if 0 < tree.rounds_ago <= len(self._recent):  # else its round was interrupted
                # built while an earlier round was verified, mostly the one before, and belongs to that round
                earlier = self._recent[-tree.rounds_ago]()
                if earlier is not None:
                    earlier.trees.append(tree.settled())
        self._recent.append(weakref.ref(kept))
        if rows:
            kept.count(rows, self.totals)
        for recording, own in self._by_recording(kept.request_ids, rows):
            recording.count(kept, own)
            if self._record and verified.probabilities is not None:
                recording.keep(kept.settled(), own)

    def interrupted(self) -> None:
        """Rounds were launched whose outcome nobody will hear of: a tree that comes now belongs to none before."""
        self._recent.clear()

    def request(self, sequence: Sequence) -> None:
        """A request ended."""
        self._recordings.pop(sequence.request_id).request(sequence)

    def _by_recording(self, request_ids: list[int], rows: list[int]) -> list[tuple[Recording, list[int]]]:
        found: dict[int, tuple[Recording, list[int]]] = {}
        for row in rows:
            recording = self._recordings[request_ids[row]]
            found.setdefault(id(recording), (recording, []))[1].append(row)
        return list(found.values())
