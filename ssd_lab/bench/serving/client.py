"""One request to a server, timed event by event."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.serving.workload import Ask
from ssd_lab.client.address import Address, refusal, timeouts, unreachable
from ssd_lab.client.stream import EventReader, finished
from ssd_lab.errors import ServerError


@dataclass
class Timing:
    """What one request took, in seconds of the load's clock. due_s: when it was to be sent; event_s: when each piece of
    text came. num_tokens: counted by the server, or None. error: None if the whole answer came.
    """

    ask: Ask
    due_s: float
    sent_s: float = 0.0
    end_s: float = 0.0
    event_s: list[float] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    num_prompt_tokens: int | None = None
    num_tokens: int | None = None
    error: ServerError | None = None


class Client:
    """Asks one server. Use as an async context manager."""

    def __init__(self, address: Address, config: BenchConfig) -> None:
        assert config.load is not None
        self._load, self._config = config.load, config
        path = "chat/completions" if self._load.endpoint == "chat" else "completions"
        self._url = f"{address.base}/{path}"
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.AsyncClient(
            timeout=timeouts(self._load.timeout_s), limits=unlimited, headers=address.headers, follow_redirects=True
        )
        self._start_s = time.perf_counter()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    def start_clock(self) -> None:
        """Times count from now."""
        self._start_s = time.perf_counter()

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start_s

    async def request(self, ask: Ask, due_s: float) -> Timing:
        """Send it and read the answer to its end; what goes wrong is kept in the result."""
        timing = Timing(ask, due_s, sent_s=self.now_s)
        try:
            async with asyncio.timeout(self._load.timeout_s):
                await self._read(ask, timing)
        except ServerError as error:
            timing.error = error
        except httpx.HTTPError as error:
            timing.error = unreachable(self._url, error)
        except TimeoutError:
            timing.error = ServerError(f"no whole answer within {self._load.timeout_s:g} s", "timeout")
        timing.end_s = self.now_s
        return timing

    async def _read(self, ask: Ask, timing: Timing) -> None:
        reader, parts = EventReader(), list[str]()
        async with self._http.stream("POST", self._url, json=self._body(ask)) as response:
            if response.status_code != httpx.codes.OK:
                raise refusal(self._url, response.status_code, (await response.aread()).decode("utf-8", "replace"))
            async for line in response.aiter_lines():
                delta = reader.read(line)
                if delta is None:
                    continue
                if delta.text:
                    timing.event_s.append(self.now_s)
                    parts.append(delta.text)
                timing.finish_reason = delta.finish_reason or timing.finish_reason
                if delta.usage is not None:
                    timing.num_tokens = _count(delta.usage, "completion_tokens")
                    timing.num_prompt_tokens = _count(delta.usage, "prompt_tokens")
        finished(reader, timing.finish_reason)
        timing.text = "".join(parts)

    def _body(self, ask: Ask) -> dict[str, Any]:
        is_chat = self._load.endpoint == "chat"
        what = {"messages": [{"role": "user", "content": ask.text}]} if is_chat else {"prompt": ask.text}
        more = {"ignore_eos": True} if self._config.ignore_eos else {}
        return {
            "model": self._load.model, **what, "max_tokens": ask.max_tokens, "temperature": self._config.temperature,
            "seed": ask.seed, "stream": True, "stream_options": {"include_usage": True}, **more,
        }  # fmt: skip


def _count(usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) else None
