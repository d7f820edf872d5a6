"""The run table: results in one SQLite file, complete or absent, whatever kills the program that writes them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ssd_lab.bench.config import BenchConfig, cell_key
from ssd_lab.bench.result import BenchResult
from ssd_lab.errors import ConfigError

DEFAULT_TABLE = Path("results") / "bench.sqlite"
TABLE_VERSION = 1
_BUSY_TIMEOUT_S = 60.0
_CREATE_FAILURES = """
CREATE TABLE IF NOT EXISTS failures (
    cell TEXT PRIMARY KEY,
    run_group TEXT,
    config TEXT NOT NULL,
    error TEXT NOT NULL
)
"""
_CREATE = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    cell TEXT NOT NULL,
    run_group TEXT,
    name TEXT,
    config TEXT NOT NULL,
    result TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS runs_by_cell ON runs (cell);
CREATE INDEX IF NOT EXISTS runs_by_name ON runs (name);
"""


@dataclass(frozen=True)
class Row:
    """One run of the table, without its figures. time: UTC, when it was measured."""

    run_id: int
    time: str
    cell: str
    group: str | None
    name: str | None
    config: BenchConfig


@dataclass(frozen=True)
class Failure:
    """A cell that raised. error: type and message."""

    cell: str
    group: str | None
    config: BenchConfig
    error: str


class RunTable:
    """Results by id, name or cell. One writer at a time waits for another; readers wait for none.

    The file and its folder are made when missing. Raises ConfigError if it is no run table or of another version.
    """

    def __init__(self, path: str | Path = DEFAULT_TABLE) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.connected() as database:
                version = database.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    database.execute("PRAGMA journal_mode = WAL")
                    database.executescript(f"BEGIN IMMEDIATE; {_CREATE} PRAGMA user_version = {TABLE_VERSION}; COMMIT;")
        except (OSError, sqlite3.DatabaseError) as error:
            raise ConfigError(f"{self.path} cannot be used as a run table ({error}): name another file") from error
        if version not in (0, TABLE_VERSION):
            raise ConfigError(
                f"{self.path} is a run table of version {version} and this program writes {TABLE_VERSION}: name another"
            )

    def add(
        self, result: BenchResult, *, group: str | None = None, name: str | None = None, cell: str | None = None
    ) -> int:
        """Store a result; returns its id. cell: None takes the config's key."""
        values = (
            result.environment.get("time", ""),
            cell or cell_key(result.config),
            group,
            name,
            result.config.model_dump_json(),
            json.dumps(result.as_dict()),
        )
        with self.connected() as database:
            cursor = database.execute(
                "INSERT INTO runs (time, cell, run_group, name, config, result) VALUES (?, ?, ?, ?, ?, ?)", values
            )
            if cursor.lastrowid is None:
                raise ConfigError(f"{self.path} gave the run no id: name another file")
            return cursor.lastrowid

    def get(self, id_or_name: int | str) -> BenchResult:
        """The run of that id, or the latest of that name. Raises ConfigError that says which there are."""
        return self._load(self.find(id_or_name).run_id)

    def find(self, id_or_name: int | str) -> Row:
        """The row of that id, or the latest of that name; errors as `get`."""
        rows = self.list()
        text = str(id_or_name)
        found = [row for row in rows if row.name == text] or [row for row in rows if str(row.run_id) == text]
        if not found:
            known = ", ".join(row.name or str(row.run_id) for row in rows[-10:])
            raise ConfigError(
                f"{self.path} has no run {text!r}; "
                + (f"the latest are {known} (`ssd-lab bench list`)" if known else "it is empty: run a benchmark first")
            )
        return found[-1]

    def by_cell(self, cell: str) -> BenchResult | None:
        """The latest result of that cell, None if it was not measured yet."""
        with self.connected() as database:
            found = database.execute("SELECT max(id) FROM runs WHERE cell = ?", (cell,)).fetchone()[0]
        return None if found is None else self._load(found)

    def list(self, group: str | None = None) -> list[Row]:
        """All runs, oldest first; group: only those."""
        query = "SELECT id, time, cell, run_group, name, config FROM runs"
        values: tuple[str, ...] = ()
        if group is not None:
            query, values = f"{query} WHERE run_group = ?", (group,)
        with self.connected() as database:
            rows = database.execute(f"{query} ORDER BY id", values).fetchall()
        return [
            Row(run_id, time, cell, group_, name, BenchConfig.model_validate_json(config))
            for run_id, time, cell, group_, name, config in rows
        ]

    def _load(self, run_id: int) -> BenchResult:
        with self.connected() as database:
            text = database.execute("SELECT result FROM runs WHERE id = ?", (run_id,)).fetchone()[0]
        return BenchResult.from_dict(json.loads(text))

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each call: threads and forked workers may share a table object."""
        database = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S)
        try:
            database.execute("PRAGMA synchronous = FULL")  # a row that was reported is on the disk
            with database:
                yield database
        except sqlite3.OperationalError as error:  # no room, no rights
            raise ConfigError(f"{self.path} cannot be used as a run table ({error}): name another file") from error
        finally:
            database.close()


class Failures:
    """The failed cells of a run table; each holds its latest error until the cell succeeds."""

    def __init__(self, table: RunTable) -> None:
        self._table = table

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
        with self._table.connected() as database:
            database.execute(_CREATE_FAILURES)
            yield database
