"""Cells that do what real ones may do, without models."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from typing import Any, ClassVar

from ssd_lab.bench.multi.cell import Cell, Kept
from ssd_lab.errors import ConfigError


@dataclass(frozen=True)
class Doing(Cell):
    """what: `well`, `fail`, `fail after others`, `refuse`, `die` or `hang`."""

    piece: ClassVar[str] = "links"

    name: str
    what: str
    shares: str = "one"
    thought_s: float = 1.0

    @property
    def key(self) -> str:
        return f"links/{self.name}"

    @property
    def group(self) -> str:
        return self.shares

    @property
    def estimate_s(self) -> float:
        return self.thought_s

    def run(self, kept: Kept) -> dict[str, Any]:
        kept.things["cells"] = before = kept.things.get("cells", 0) + 1
        if self.what == "fail" or (self.what == "fail after others" and before > 1):
            raise RuntimeError("it cannot be")
        if self.what == "refuse":
            raise ConfigError("three do not divide")
        if self.what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "hang":
            subprocess.run(["sleep", "300"], check=False)
        return {"process": os.getpid(), "cells before": before - 1}
