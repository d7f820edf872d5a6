"""Cells that failed, kept beside the results in the run table's file, so that a table tells the whole sweep."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ssd_lab.bench.config import BenchConfig, cell_key
from ssd_lab.bench.store import RunTable

_BUSY_TIMEOUT_S = 60.0
_CREATE = """
CREATE TABLE IF NOT EXISTS failures (
    cell TEXT PRIMARY KEY,
    run_group TEXT,
    config TEXT NOT NULL,
    error TEXT NOT NULL
)
"""


@dataclass(frozen=True)
class Failure:
    """A cell that raised. error: type and message."""

    cell: str
    group: str | None
    config: BenchConfig
    error: str


class Failures:
    """The failed cells of a run table; each holds its latest error until the cell succeeds."""

    def __init__(self, table: RunTable) -> None:
        self._path = table.path

    def record(self, config: BenchConfig, error: str, group: str | None = None) -> None:
        """Keep a cell's error in place of an older one."""
        values = (cell_key(config), group, config.model_dump_json(), error)
        with self._connected() as database:
            database.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", values)

    def forget(self, *configs: BenchConfig) -> None:
        """These cells are finished now."""
        with self._connected() as database:
            database.executemany("DELETE FROM failures WHERE cell = ?", [(cell_key(config),) for config in configs])

    def list(self, group: str | None = None) -> list[Failure]:
        """All failed cells; group: only those."""
        with self._connected() as database:
            rows = database.execute("SELECT cell, run_group, config, error FROM failures ORDER BY rowid").fetchall()
        return [
            Failure(cell, of_group, BenchConfig.model_validate_json(config), error)
            for cell, of_group, config, error in rows
            if group is None or of_group == group
        ]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S)
        try:
            with database:
                database.execute(_CREATE)
                yield database
        finally:
            database.close()
