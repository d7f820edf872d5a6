"""A small OpenAI-compatible server in a thread: each request is answered as a script says, at known times."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """How one request is answered.

    words: one event each, `gap_s` apart, the first after `first_s`. per_event: tokens that the usage counts for each.
    malformed_at, drop_at, error_at: the event in whose place comes nonsense, nothing more, or an error. done: is the
    end said? usage: are tokens counted?
    """

    words: tuple[str, ...] = ("one ", "two ", "three")
    first_s: float = 0.0
    gap_s: float = 0.0
    status: int = 200
    said: str = "busy"
    per_event: int = 1
    usage: bool = True
    finish_reason: str | None = "stop"
    malformed_at: int | None = None
    drop_at: int | None = None
    error_at: int | None = None
    done: bool = True
    speculation: dict[str, Any] | None = None


@dataclass
class Seen:
    """A request that came. left: the client closed before the answer was over."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    time_s: float
    left: bool = False


@dataclass
class FakeServer:
    """A context manager. script: what to do with the request of that number (from 0) and body."""

    script: Callable[[int, dict[str, Any]], Reply] = lambda number, body: Reply()
    models: tuple[str, ...] = ("fake",)
    seen: list[Seen] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> FakeServer:
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self._port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request of a connection; False if it is over."""
        line = await reader.readline()
        if not line:
            return False
        path = line.decode().split()[1]
        headers = {}
        while (raw := (await reader.readline()).decode().strip()) != "":
            name, _, value = raw.partition(":")
            headers[name.lower()] = value.strip()
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        if path.endswith("/models"):
            self._whole(writer, 200, {"data": [{"id": name} for name in self.models]})
            return True
        body = json.loads(content)
        seen = Seen(path, headers, body, time.perf_counter())
        number = len(self.seen)
        self.seen.append(seen)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._answer(self.script(number, body), seen, writer)
        except ConnectionError:
            seen.left = True
            raise
        finally:
            self.running -= 1

    async def _answer(self, reply: Reply, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        if reply.status != 200:
            self._whole(writer, reply.status, {"error": {"message": reply.said}})
            return True
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        is_chat = seen.path.endswith("chat/completions")
        await asyncio.sleep(reply.first_s)
        for number, word in enumerate(reply.words):
            if number:
                await asyncio.sleep(reply.gap_s)
            if number == reply.drop_at:
                return False
            if number == reply.malformed_at:
                self._event(writer, "{not json")
            elif number == reply.error_at:
                self._event(writer, json.dumps({"error": {"message": "the engine broke"}}))
            else:
                self._event(writer, json.dumps({"choices": [_choice(is_chat, word)]}))
            await writer.drain()
            if writer.transport.is_closing():
                raise ConnectionResetError
        if reply.finish_reason is not None:
            self._event(
                writer, json.dumps({"choices": [{**_choice(is_chat, ""), "finish_reason": reply.finish_reason}]})
            )
        if reply.usage:
            counts = {"prompt_tokens": 5, "completion_tokens": len(reply.words) * reply.per_event}
            more = {"metrics": {"speculative_decoding": reply.speculation}} if reply.speculation else {}
            self._event(writer, json.dumps({"choices": [], "usage": counts, **more}))
        if reply.done:
            self._event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _event(self, writer: asyncio.StreamWriter, data: str) -> None:
        payload = f"data: {data}\n\n".encode()
        writer.write(f"{len(payload):x}\r\n".encode() + payload + b"\r\n")

    def _whole(self, writer: asyncio.StreamWriter, status: int, document: dict[str, Any]) -> None:
        payload = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
        writer.write(head.encode() + payload)


def _choice(is_chat: bool, word: str) -> dict[str, Any]:
    choice = {"delta": {"content": word}} if is_chat else {"text": word}
    return {"index": 0, **choice, "finish_reason": None}
