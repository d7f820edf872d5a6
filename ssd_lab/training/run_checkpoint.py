"""What a training run leaves at intervals, so that an interrupted one goes on to the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ssd_lab.common.places import write_whole
from ssd_lab.errors import ConfigError


def fingerprint(**parts: Any) -> str:
    """A short digest of anything that decides a run's result: settings as JSON, arrays by their bytes."""
    digest = hashlib.blake2b(digest_size=12)
    for name, part in sorted(parts.items()):
        digest.update(name.encode())
        digest.update(part.tobytes() if hasattr(part, "tobytes") else json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


class RunCheckpoint:
    """One file with a run's state, replaced as a whole. every_steps: optimiser steps from one to the next."""

    def __init__(self, path: Path, *, key: str, every_steps: int) -> None:
        self.path, self.every_steps = path, every_steps
        self._key = key

    def load(self, device: torch.device | str) -> dict[str, Any] | None:
        """The saved state, or None if there is none. Raises ConfigError if it belongs to another run."""
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:  # a damaged archive raises whatever its reader stumbles over
            raise ConfigError(f"{self.path} is damaged ({error}): remove it to begin again") from error
        if state.pop("key", None) != self._key:
            raise ConfigError(
                f"{self.path} was left by a run with other settings, data or target: "
                "remove it to begin again, or repeat the settings of that run"
            )
        return state

    def due(self, step_number: int) -> bool:
        """Is it time to save?"""
        return step_number % self.every_steps == 0

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file; a reader finds the old state or the new one, never half of one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_whole(self.path, lambda unfinished: torch.save({**state, "key": self._key}, unfinished))
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(f"{self.path} cannot be written: {str(error).splitlines()[0]}") from error
