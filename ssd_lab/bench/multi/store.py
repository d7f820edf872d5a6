"""The folder of a report: what it is of, every finished cell on a line of its own, and who writes to it."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssd_lab.bench.claim import SETTINGS, claim
from ssd_lab.bench.multi.process import Outcome
from ssd_lab.common.json_lines import JsonLines
from ssd_lab.errors import ConfigError

RESULTS, CALLS, LOCK = "results.jsonl", "calls.jsonl", ".lock"


class Store:
    """Results by cell. settings: what the folder is of; those of another report are never mixed in.

    Raises ConfigError for a folder that cannot be used, or is of other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.folder = folder
        self.results: dict[str, dict[str, Any]] = {}
        self.calls: list[dict[str, Any]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if fresh:
                self._clear()
            claim(folder, settings)
            self.results = {line["key"]: line for line in self._lines(RESULTS).read()}
            self.calls = self._lines(CALLS).read()
        except OSError as error:
            raise ConfigError(f"--out {folder} cannot be used ({error}): name another folder") from error

    def add(self, key: str, outcome: Outcome, time: str) -> None:
        """Keep what came of a cell, on the disk before this returns."""
        line = {"key": key, "status": outcome.status, "seconds": round(outcome.seconds, 2), "time": time}
        line |= {"result": outcome.result} if outcome.status == "done" else {"error": outcome.error}
        self.results[key] = line
        self._lines(RESULTS).add(line)

    def begin_call(self, call: dict[str, Any]) -> None:
        """Note the command, the machine and the code of this call, unless the last one had the same."""
        last = {name: value for name, value in (self.calls or [{}])[-1].items() if name != "time"}
        if last != {name: value for name, value in call.items() if name != "time"}:
            self.calls.append(call)
            self._lines(CALLS).add(call)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within this nobody else measures for this folder. Raises ConfigError if somebody does already."""
        with (self.folder / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    f"another call works on {self.folder}: wait for its end, or name another folder with --out"
                ) from error
            yield

    def _lines(self, name: str) -> JsonLines:
        return JsonLines(self.folder / name)

    def _clear(self) -> None:
        """Only what is of a report of this kind."""
        if not (self.folder / SETTINGS).exists():
            return
        for name in (SETTINGS, RESULTS, CALLS):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / "traces", ignore_errors=True)
