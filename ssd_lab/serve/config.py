"""What a server is told: where it listens, who may ask, and how much."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ssd_lab.errors import ConfigError


class ServeConfig(BaseModel):
    """Settings of the server; those of engines and strategies are theirs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 is every one of them")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    served_name: str | None = Field(None, min_length=1, description="name of the target in requests; None: its own")
    replicas: int = Field(1, ge=1, description="copies of all engines, each on devices of its own, through Ray Serve")
    max_queue: int = Field(256, ge=0, description="texts of one model that wait for a place in its batch; then 429")
    max_choices: int = Field(64, ge=1, description="texts that one request may ask for: prompts times n")
    max_output: int | None = Field(None, ge=1, description="longest output in tokens that a request may ask for")
    max_body_bytes: int = Field(4 * 2**20, ge=1024, description="largest body of a request; then 413")
    request_timeout_s: float = Field(600.0, gt=0, description="longest that a request may take, waiting included")
    grace_s: float = Field(30.0, ge=0, description="when stopping: how long running answers may take to finish")
    page: bool = Field(True, description="the live page / with the latest requests, their prompts and rounds")
    recent: int = Field(16, ge=0, le=1024, description="finished requests whose rounds the live page keeps")
    access_log: bool = Field(True, description="one JSON line for each request on stderr")

    @property
    def is_loopback(self) -> bool:
        """Can only programs of this machine reach it?"""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"


def read_api_keys(path: Path) -> tuple[str, ...]:
    """The keys in a file, one a line; empty lines and lines that begin with # are passed over. Raises ConfigError."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the file of API keys {path} cannot be read ({error}): give a text file, a key a line"
        ) from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not keys:
        raise ConfigError(f"the file of API keys {path} holds no key: write one a line, or leave the option out")
    if any(not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise ConfigError(
            f"a key in {path} has characters that no HTTP header holds: use printable ASCII without spaces"
        )
    return keys
