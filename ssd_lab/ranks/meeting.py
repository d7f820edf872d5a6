"""Where the ranks of one model find each other: no ports and no names that another run has."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

MEMORY = Path("/dev/shm")  # files that are memory, where the system has them


@dataclass(frozen=True)
class Meeting:
    """name: of this meeting alone: a private folder, or what begins the names in a store of torch.distributed. size:
    how many ranks come. limit_s: for them to come, and later for each of their meetings in a step. hub: address and
    port of the store, None for a folder. addresses: of the ranks' hosts, there.
    """

    name: str
    size: int
    limit_s: float
    hub: tuple[str, int] | None = None
    addresses: tuple[str, ...] = ()

    @classmethod
    def called(cls, size: int, limit_s: float) -> Meeting:
        """A new one on this host, in memory if possible."""
        place = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
        return cls(tempfile.mkdtemp(prefix=f"ssd_lab-ranks-{os.getpid()}-", dir=place), size, limit_s)

    @classmethod
    def at(cls, address: str, port: int, addresses: Sequence[str], limit_s: float) -> Meeting:
        """A new one of several hosts, in a store that all of them reach."""
        name = f"ssd_lab/meeting/{secrets.token_hex(8)}"
        return cls(name, len(addresses), limit_s, (address, port), tuple(addresses))

    @property
    def is_on_one_host(self) -> bool:
        """Is there a folder that all see?"""
        return self.hub is None

    def address_of(self, rank: int) -> str:
        """Where the others reach it."""
        return self.addresses[rank] if self.addresses else "127.0.0.1"

    def store(self) -> Any:
        """The store of torch.distributed through which connections are made."""
        if self.hub is None:
            found: Any = dist.FileStore(str(self.file("store")), self.size)
        else:
            address, port = self.hub
            limit = timedelta(seconds=self.limit_s)
            client = dist.TCPStore(address, port, is_master=False, timeout=limit, wait_for_workers=False)
            found = dist.PrefixStore(self.name, client)
        found.set_timeout(timedelta(seconds=self.limit_s))
        return found

    def file(self, name: str) -> Path:
        """Of that name, in the folder."""
        return Path(self.name) / name

    def is_over(self) -> None:
        """Whoever came has opened all; nobody else may come. Whoever notices that it failed may say so, too."""
        if self.is_on_one_host:
            shutil.rmtree(self.name, ignore_errors=True)
