"""Finished cells in a file, one a line: an interruption loses the cell that was running and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssd_lab.check.cells import CellResult
from ssd_lab.common.json_lines import JsonLines
from ssd_lab.errors import ConfigError

NAME = "cells.jsonl"


class CellStore:
    """The first line says what was run and with which code; cells of another state are never mixed in."""

    def __init__(self, folder: Path, header: dict[str, Any], *, fresh: bool = False) -> None:
        self._lines = JsonLines(folder / NAME)
        self.results: dict[str, CellResult] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if fresh:
                self._lines.path.unlink(missing_ok=True)
            self._load(header)
        except OSError as error:
            raise ConfigError(f"{self._lines.path} cannot be used ({error}): name another folder with --out") from error

    def add(self, result: CellResult) -> None:
        """Keep it, on the disk before this returns."""
        self.results[result.key] = result
        self._lines.add(result.as_dict())

    def _load(self, header: dict[str, Any]) -> None:
        file = self._lines.path
        try:
            before, *cells = self._lines.read() or [header]
            results = [CellResult.from_dict(cell) for cell in cells]
            other = sorted(name for name in header.keys() | before.keys() if header.get(name) != before.get(name))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{file} holds no cells of this check: name another folder with --out") from error
        if other:
            raise ConfigError(
                f"{file} was written with other {', '.join(other)}: begin anew with --fresh, or name another folder "
                "with --out"
            )
        if not file.exists() or not file.stat().st_size:
            self._lines.add(header)
        self.results = {result.key: result for result in results}
