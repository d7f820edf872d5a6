"""What one repeat of a data set measured: its requests one by one, and the counts over all rounds."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.trace import Totals


@dataclass(frozen=True)
class RequestResult:
    """One request of one repeat. Times are in seconds; accepted, tested, hits and lookups count over its rounds,
    and are 0 without a trace.

    queue_s: from arrival until it left the queue; first_token_s and latency_s count from there (None: it never began,
    or did not end). digest: of its token ids, equal for equal texts.

    Measured from a client's side: gaps_s: between the pieces of the streamed answer; error: why it failed, in a few
    words; in_time: did it keep the limits, None without any.

    Then queue_s is how late it was sent, and times count from when it was due.
    """

    prompt_id: str
    num_prompt_tokens: int
    num_output_tokens: int
    finish_reason: str | None
    digest: str
    queue_s: float | None
    first_token_s: float | None
    latency_s: float | None
    rounds: int = 0
    accepted: int = 0
    tested: int = 0
    hits: int = 0
    lookups: int = 0
    gaps_s: tuple[float, ...] = ()
    error: str | None = None
    in_time: bool | None = None


@dataclass(frozen=True)
class RepeatResult:
    """All prompts of a data set, once. wall_s: from the first request's arrival to the last one's end.

    prefill_s, decode_s: seconds of it in which prompts, and rounds, were computed, without those in which graphs were
    captured or kernels compiled (see `Totals`); totals: counts over all rounds. served: measured from a client's side,
    which sees no rounds.
    """

    wall_s: float
    prefill_s: float
    decode_s: float
    totals: Totals
    requests: tuple[RequestResult, ...]
    peak_memory_bytes: int | None = None
    served: bool = False

    @property
    def unprepared_s(self) -> float:
        """The whole time without capturing and compiling."""
        return self.wall_s - self.totals.preparation_s

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated."""
        return sum(request.num_output_tokens for request in self.requests)

    @property
    def num_prefill_tokens(self) -> int:
        """Prompt tokens computed before decoding: all but each prompt's last one, which a round feeds."""
        return sum(request.num_prompt_tokens - 1 for request in self.requests)
