"""A load on a server: who asks how often, and what counts as in time."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Limits(BaseModel):
    """What a request must keep to count as in time; None: no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_token_ms: float | None = Field(None, gt=0, description="longest time to the first token")
    token_ms: float | None = Field(None, gt=0, description="longest mean time per token after the first")
    latency_ms: float | None = Field(None, gt=0, description="longest time to the last token")

    def met(self, first_token_s: float, token_s: float | None, latency_s: float) -> bool | None:
        """Was a request in time? None without limits. token_s: None for an answer of one token."""
        pairs = [
            (self.first_token_ms, first_token_s), (self.token_ms, token_s or 0.0), (self.latency_ms, latency_s),
        ]  # fmt: skip
        limited = [(limit, value) for limit, value in pairs if limit is not None]
        return all(value * 1000 <= limit for limit, value in limited) if limited else None


class LoadConfig(BaseModel):
    """Closed loop: `concurrency` clients, each asks anew when it has its answer. Open loop: requests come at `rate`,
    whether answers are there or not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="the server's address, without a key")
    model: str = Field(description="the model that is asked")
    endpoint: Literal["chat", "completions"] = Field("chat", description="chat wraps prompts in the server's template")
    concurrency: int | None = Field(None, ge=1, le=4096, description="closed loop: clients that ask one after another")
    rate: float | None = Field(None, gt=0, description="open loop: requests a second")
    arrivals: Literal["poisson", "constant"] = Field("poisson", description="open loop: how arrivals are spaced")
    duration_s: float | None = Field(None, gt=0, description="ask for so long, in place of a number of requests")
    warmup: int = Field(4, ge=0, description="requests before the first that counts")
    timeout_s: float = Field(120.0, gt=0, description="longest that one request may take")
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _one_loop(self) -> LoadConfig:
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("give concurrency (a closed loop) or rate (an open one), and not both")
        return self

    @property
    def label(self) -> str:
        """`bundled:async_tree at http://127.0.0.1:8000, 16 clients`."""
        return f"{self.model} at {self.url.removesuffix('/v1')}, {self.how}"

    @property
    def how(self) -> str:
        """`16 clients`, `4 requests/s, poisson`, and for how long where that is given."""
        loop = f"{self.concurrency} clients" if self.rate is None else f"{self.rate:g} requests/s, {self.arrivals}"
        return loop if self.duration_s is None else f"{loop}, for {self.duration_s:g} s"
