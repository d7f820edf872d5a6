"""What a load measured, as the repeats of any other benchmark, and what a reader must know about it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ssd_lab.bench.repeat import RepeatResult, RequestResult
from ssd_lab.bench.serving.client import Timing
from ssd_lab.bench.serving.config import LoadConfig
from ssd_lab.trace import Totals

LATE_S = 0.05  # sent so much after it was due, by one request in a hundred: worth a note
SERVER = "what the server runs is its own: its hardware, strategy and exactness are not known here"


def repeat_of(timings: Sequence[Timing], load: LoadConfig) -> RepeatResult:
    """One pass of a load; its time ends with the last answer."""
    return RepeatResult(
        wall_s=max((each.end_s for each in timings), default=0.0),
        prefill_s=0.0,
        decode_s=0.0,
        totals=Totals(),
        requests=tuple(_request(each, load) for each in timings),
        served=True,
    )


def notes_of(timings: Sequence[Timing], load: LoadConfig) -> list[str]:
    """Failures by reason, tokens that nobody counted, and a generator that was late."""
    notes = []
    reasons = Counter(each.error.reason for each in timings if each.error is not None)
    if reasons:
        told = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        notes.append(f"{reasons.total()} of {len(timings)} requests failed: {told}")
    guessed = sum(each.error is None and each.num_tokens is None for each in timings)
    if guessed:
        notes.append(f"{guessed} answers came without token counts: each event of theirs counts as a token")
    if load.rate is not None and timings:
        late_s = float(np.percentile([each.sent_s - each.due_s for each in timings], 99))
        if late_s > LATE_S:
            late = f"{late_s * 1000:.0f} ms"
            notes.append(f"the generator was late: one request in a hundred was sent {late} after its time")
    return notes


def _request(timing: Timing, load: LoadConfig) -> RequestResult:
    """Times count from when the request was due. A failed request has none, and no tokens."""
    failed = timing.error is not None
    first_s = timing.event_s[0] - timing.due_s if timing.event_s and not failed else None
    latency_s = None if failed else timing.end_s - timing.due_s
    num_tokens = 0 if failed else len(timing.event_s) if timing.num_tokens is None else timing.num_tokens
    in_time = False if failed and load.limits != type(load.limits)() else None
    if first_s is not None and latency_s is not None:
        token_s = (latency_s - first_s) / (num_tokens - 1) if num_tokens > 1 else None
        in_time = load.limits.met(first_s, token_s, latency_s)
    digest = hashlib.blake2b(timing.text.encode(), digest_size=8).hexdigest()
    return RequestResult(
        prompt_id=timing.ask.prompt_id,
        num_prompt_tokens=timing.num_prompt_tokens or 0,
        num_output_tokens=num_tokens,
        finish_reason=timing.finish_reason,
        digest=f"failed at {load.url}" if failed else digest,
        queue_s=timing.sent_s - timing.due_s,
        first_token_s=first_s,
        latency_s=latency_s,
        gaps_s=() if failed else tuple(round(gap, 6) for gap in np.diff(timing.event_s).tolist()),
        error=None if timing.error is None else timing.error.reason,
        in_time=in_time,
    )
