"""What some requests went through: cheap totals always, every round if asked.

During the run only references are kept; records are made of them when the trace is asked for.
"""

from __future__ import annotations

import copy
import time
from typing import Any

from ssd_lab.engine.round_records import KeptRound, RoundRecords
from ssd_lab.execution.preparations import Preparations
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.trace.missing import MissingParts
from ssd_lab.trace.records import Activity, RequestRecord
from ssd_lab.trace.totals import Totals
from ssd_lab.trace.trace import Trace


class Recording:
    """Builds the trace of the requests that it is given. Its times are seconds since it was made.

    meta: what is known of the engine, which may grow. vocab_size: no id outside it gets into a trace. totals: the
    counts so far, live. preparations: of target and draft, whoever caused them: everybody waits for them.
    """

    def __init__(self, meta: dict[str, Any], vocab_size: int, preparations: Preparations) -> None:
        self._meta = meta
        self._preparations = preparations
        self._vocab_size = vocab_size
        self._is_wanted = True
        self._begin()

    def _begin(self) -> None:
        self._origin_s = time.perf_counter()
        self._end_s: float | None = None  # of a recording that goes on no more
        self._requests: list[RequestRecord] = []
        self._rounds: list[tuple[KeptRound, list[int]]] = []  # with the rows that belong here
        self._prefills: list[Activity] = []
        self.totals = Totals()

    def so_far(self) -> Recording:
        """A copy that stays as it is while recording goes on."""
        copied = copy.copy(self)
        copied._requests, copied._rounds, copied._prefills = self._requests[:], self._rounds[:], self._prefills[:]
        copied.totals = self.totals.copy()
        copied._end_s = time.perf_counter()
        return copied

    def drop(self) -> None:
        """Nobody will ask: keep no rounds from now on."""
        self._is_wanted = False
        self._begin()

    def take(self) -> Recording:
        """What was recorded so far; recording starts afresh."""
        taken = copy.copy(self)
        taken._end_s = time.perf_counter()
        self._begin()
        return taken

    def count_prefill(self, prefill: Activity, preparation_s: float) -> None:
        """Prompt chunks were computed together; of that time so much went into preparing."""
        self.totals.add_prefill(prefill.end_s - prefill.start_s, preparation_s=preparation_s)

    def keep_prefill(self, prefill: Activity) -> None:
        """Let the trace hold it."""
        if self._is_wanted:
            self._prefills.append(prefill)

    def count(self, kept: KeptRound, rows: list[int]) -> None:
        """A round is over. rows: of the requests recorded here."""
        kept.count(rows, self.totals)

    def keep(self, kept: KeptRound, rows: list[int]) -> None:
        """Let the trace hold the round."""
        if self._is_wanted:
            self._rounds.append((kept, rows))

    def request(self, sequence: Sequence) -> None:
        """A request ended."""
        self._requests.append(
            RequestRecord(
                request_id=sequence.request_id,
                prompt=sequence.prompt,
                prompt_ids=list(sequence.prompt_ids),
                token_ids=sequence.output_ids,
                text=sequence.stop.text,
                finish_reason=sequence.finish_reason,
                arrival_s=sequence.arrival_s - self._origin_s,
                admitted_s=self._since_start(sequence.admitted_s),
                first_token_s=self._since_start(sequence.first_token_s),
                end_s=self._since_start(sequence.end_s),
                params=sequence.params.model_dump(),
            )
        )

    def trace(self, first_round: int = 0) -> Trace:
        """What was recorded so far, from this round on."""
        missing = MissingParts()
        prepared = self._preparations.between(self._origin_s, self._end_s or time.perf_counter())
        records = RoundRecords(self._origin_s, self._vocab_size, missing, prepared)
        meta = {**self._meta, "totals": self.totals.as_dict()}
        with missing.part("the number of ranked candidates"):
            ranked = next((tree.num_candidates for kept, _ in self._rounds for tree in kept.trees), None)
            if ranked is not None:
                meta["ranked_candidates"] = ranked
        later = enumerate(self._rounds[first_round:], start=first_round)
        rounds = [records.round(index, kept, rows) for index, (kept, rows) in later]
        requests = sorted(self._requests, key=lambda r: r.request_id)
        prefills, preparations = ([records.activity(one) for one in some] for some in (self._prefills, prepared))
        return Trace(missing.noted(meta), requests, rounds, prefills, preparations=preparations)

    def _since_start(self, moment_s: float | None) -> float | None:
        return None if moment_s is None else moment_s - self._origin_s
