"""Finished cells in a file, one a line: an interruption loses the cell that was running and no other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ssd_lab.check.cells import CellResult
from ssd_lab.errors import ConfigError

NAME = "cells.jsonl"


class CellStore:
    """The first line says what was run and with which code; cells of another state are never mixed in."""

    def __init__(self, folder: Path, header: dict[str, Any], *, fresh: bool = False) -> None:
        self._file = folder / NAME
        self.results: dict[str, CellResult] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            content = "" if fresh or not self._file.exists() else self._file.read_text(encoding="utf-8")
            whole = content[: content.rfind("\n") + 1]  # a line that was being written when the program died is no line
            if not whole or whole != content:
                self._file.write_text(whole or json.dumps(header) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{self._file} cannot be used ({error}): name another folder with --out") from error
        if whole:
            self._load(whole.splitlines(), header)

    def add(self, result: CellResult) -> None:
        """Keep it, on the disk before this returns."""
        self.results[result.key] = result
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result.as_dict()) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _load(self, lines: list[str], header: dict[str, Any]) -> None:
        try:
            before = json.loads(lines[0])
            results = [CellResult.from_dict(json.loads(line)) for line in lines[1:]]
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{self._file} holds no cells of this check: name another folder with --out") from error
        other = sorted(name for name in header.keys() | before.keys() if header.get(name) != before.get(name))
        if other:
            raise ConfigError(
                f"{self._file} was written with other {', '.join(other)}: begin anew with --fresh, or name another "
                "folder with --out"
            )
        self.results = {result.key: result for result in results}
