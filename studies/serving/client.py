"""A lean streaming client: on a small machine a comfortable one would be measured along with the server."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

LIMIT_S = 300.0
_DATA = b"data: "


@dataclass
class Answer:
    """A text, and when each of its chunks came (seconds of the monotonic clock). error: what came instead."""

    begun_s: float
    text: str = ""
    moments_s: list[float] = field(default_factory=list)
    tokens: int = 0
    error: str | None = None

    @property
    def seconds(self) -> float:
        """From asking to the last chunk."""
        return self.moments_s[-1] - self.begun_s if self.moments_s else float("inf")

    @property
    def first_s(self) -> float:
        """From asking to the first chunk with text."""
        return self.moments_s[0] - self.begun_s if self.moments_s else float("inf")

    @property
    def per_token_s(self) -> float:
        """Of the tokens that came behind the first chunk, nearly all."""
        return (self.moments_s[-1] - self.moments_s[0]) / max(1, self.tokens - 1)


async def ask(url: str, body: dict[str, Any], *, leave_after: int | None = None) -> Answer:
    """One streamed completion; leave_after: close the connection after so many chunks."""
    address = urlsplit(url)
    content = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    answer = Answer(time.perf_counter())
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**20)
        try:
            writer.write(head.encode() + content)
            status = await reader.readline()
            if b" 200 " not in status:
                answer.error = status.decode().strip()
                return answer
            while (line := await reader.readline()) and not line.startswith(b"data: [DONE]"):
                if line.startswith(_DATA):
                    _take(answer, json.loads(line.removeprefix(_DATA)))
                    if leave_after is not None and len(answer.moments_s) >= leave_after:
                        return answer
            if not line:
                answer.error = answer.error or "the stream broke off"
        finally:
            writer.close()
    return answer


def _take(answer: Answer, chunk: dict[str, Any]) -> None:
    if "error" in chunk:
        answer.error = chunk["error"]["message"]
    elif chunk["choices"]:
        answer.text += chunk["choices"][0]["text"]
        answer.moments_s.append(time.perf_counter())
    else:
        answer.tokens = chunk["usage"]["completion_tokens"]
