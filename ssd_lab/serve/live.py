"""The live page: requests that are running, the latest ones that ended, and the rounds of each by the usual views."""

from __future__ import annotations

import tempfile
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssd_lab.serve.answering import Answering
from ssd_lab.serve.errors import ApiError
from ssd_lab.serve.job import Job
from ssd_lab.trace import Trace
from ssd_lab.widgets.page import html_page

PAGE = Path(__file__).parent / "static" / "live.html"
SHOWN = 300  # characters of a prompt and of a text in the table
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "frame-src 'self'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
TRACE_HEADERS = {"Content-Type": "application/jsonl", "Content-Disposition": 'attachment; filename="trace.jsonl"'}


@dataclass(frozen=True)
class Entry:
    """One request in the table."""

    job: Job
    answering: Answering
    begun: float = field(default_factory=time.time)

    def as_dict(self) -> dict[str, Any]:
        """What the table shows: text of a running request is a hint of progress."""
        answering, submission = self.answering, self.answering.submission
        end_s = time.perf_counter() if answering.ended_s is None else answering.ended_s
        sequences = [] if submission is None else list(submission.sequences)
        totals = None if submission is None else submission.totals
        text = sequences[0].stop.text if sequences else ""
        return {
            "id": self.job.id,
            "model": self.job.served.name,
            "kind": "chat" if self.job.is_chat else "completion",
            "running": answering.ended_s is None,
            "begun": self.begun,
            "seconds": end_s - answering.started_s,
            "texts": len(self.job.prompts),
            "prompt": _prompt_text(self.job.prompts[0])[-SHOWN:],
            "text": text[-SHOWN:],
            "tokens": sum(len(sequence.token_ids) - len(sequence.prompt_ids) for sequence in sequences),
            "finish": None if answering.ended_s is None else [sequence.finish_reason for sequence in sequences],
            "rounds": totals.sequence_rounds if totals else 0,
            "drafted": totals.drafted if totals else 0,
            "accepted": totals.accepted if totals else 0,
            "hits": totals.hits if totals else 0,
            "misses": totals.misses if totals else 0,
        }


class LiveRequests:
    """Of the event loop. keep: how many that ended are remembered, with their rounds."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def begin(self, job: Job, answering: Answering) -> None:
        """A request was submitted."""
        self._entries[job.id] = Entry(job, answering)

    def ended(self) -> None:
        """Some request ended: forget the oldest of those that did."""
        done = [name for name, entry in self._entries.items() if entry.answering.ended_s is not None]
        for name in done[: max(0, len(done) - self._keep)]:
            del self._entries[name]

    def running(self) -> list[Answering]:
        """Those that an engine is not done with."""
        return [entry.answering for entry in self._entries.values() if entry.answering.ended_s is None]

    def table(self) -> list[dict[str, Any]]:
        """The latest first, those that run before all others."""
        rows = [entry.as_dict() for entry in reversed(self._entries.values())]
        return sorted(rows, key=lambda row: not row["running"])

    def find(self, name: str) -> Entry:
        """Raises ApiError (404) if it was forgotten, or never there."""
        if name not in self._entries:
            raise ApiError(
                404, f"there is no request {name!r}, or it was too long ago: see the table", code="no_request"
            )
        return self._entries[name]


def rounds_page(entry: Entry) -> str:
    """The views of a request's rounds so far. Waits for the step that its engine is doing."""
    title = f"Request {entry.job.id[:8]}, {entry.job.served.name}"
    return html_page({entry.job.served.name: _trace(entry)}, title=title)


def trace_file(entry: Entry) -> bytes:
    """The same rounds as `Trace.save` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        _trace(entry).save(path)
        return path.read_bytes()


def _trace(entry: Entry) -> Trace:
    submission = entry.answering.submission
    if submission is None:
        raise ApiError(404, "the request never began", code="no_request")
    trace = entry.job.served.llm.trace_of(submission)
    if not trace.rounds:
        raise ApiError(404, "the request has no round yet: look again in a moment", code="no_rounds")
    return trace


def _prompt_text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    if prompt and isinstance(prompt[0], dict):
        content = prompt[-1]["content"]
        return content if isinstance(content, str) else " ".join(part["text"] for part in content)
    return f"{len(prompt)} token ids"
