"""One connection of a client: one on which no request comes is closed, so that silent ones do not fill the server."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEAD_S = 30.0  # longest that the head of a request may take to come


class Connection(H11Protocol):
    """As uvicorn has it, whose own limit ends with the first byte that comes."""

    _idle_at: RequestResponseCycle | None = None  # the request that had been answered at the last look

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self.loop.call_later(HEAD_S, self._look)

    def _look(self) -> None:
        """Has a request come since the last look, or is one being answered?"""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            if self._idle_at is self.cycle:
                self.transport.close()
                return
            self._idle_at = self.cycle
        self.loop.call_later(HEAD_S, self._look)
