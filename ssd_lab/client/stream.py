"""A streamed answer, line by line: server-sent events of chat and of plain completions, read without any network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ssd_lab.client.address import message_of
from ssd_lab.errors import ServerError

_DATA, _DONE = "data:", "[DONE]"
_SHOWN = 80  # characters of a line that is no event


@dataclass(frozen=True)
class Delta:
    """What one event adds. usage: token counts, on the last event where they were asked for. speculation: what servers
    tell there of draft tokens.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    speculation: dict[str, Any] | None = None


class EventReader:
    """Reads the lines of one stream. has_ended: the server said that nothing follows."""

    def __init__(self) -> None:
        self.has_ended = False

    def read(self, line: str) -> Delta | None:
        """What a line adds; None for lines that add nothing (comments, names of events, empty ones).

        Raises ServerError where it holds an error, or what no such server sends.
        """
        if not line.startswith(_DATA):
            return None
        text = line.removeprefix(_DATA).strip()
        if text == _DONE:
            self.has_ended = True
            return None
        try:
            return _delta(json.loads(text))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ServerError(
                f"the server sent what is no event of a stream: {text[:_SHOWN]!r}", "malformed event"
            ) from error


def finished(reader: EventReader, finish_reason: str | None) -> None:
    """The lines are over. Raises ServerError if the server had not said so."""
    if not reader.has_ended and finish_reason is None:
        raise ServerError("the stream ended in the middle of the answer", "ended early")


def _delta(event: dict[str, Any]) -> Delta:
    if event.get("error"):
        raise ServerError(f"the server failed while it answered: {message_of(event['error'])}", "error in stream")
    usage = event.get("usage")
    speculation = (event.get("metrics") or {}).get("speculative_decoding")
    if not event.get("choices"):
        if usage is None and "choices" not in event:
            raise ValueError("neither choices nor usage")
        return Delta(usage=usage, speculation=speculation)
    choice = event["choices"][0]
    delta = choice.get("delta") or {}
    text = delta.get("content") or delta.get("reasoning_content") or choice.get("text") or ""
    if not isinstance(text, str):
        raise ValueError("a text that is none")
    return Delta(text, choice.get("finish_reason"), usage, speculation)
