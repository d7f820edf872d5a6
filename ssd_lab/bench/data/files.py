"""Files of rows: JSON lines, JSON, either of them compressed, and parquet; read as a stream."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ssd_lab.errors import DatasetError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")


def is_data_file(path: Path) -> bool:
    """Can `read_rows` read it? Hidden files are no data."""
    return path.is_file() and path.name.endswith(SUFFIXES) and not path.name.startswith(".")


def read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row of a file with the words that name its place in errors. Raises DatasetError."""
    read = _parquet if path.suffix == ".parquet" else _json
    try:
        yield from read(path)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def _json(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """JSON lines, or one JSON list."""
    with _open(path) as lines:
        first = lines.readline()
        if first.lstrip().startswith("["):
            rows = _parse(first + lines.read(), str(path))
            for number, row in enumerate(rows, 1):
                yield _checked(row, f"{path}, row {number}")
            return
        number = 1
        while first:
            if first.strip():
                where = f"{path}, line {number}"
                yield _checked(_parse(first, where), where)
            first = lines.readline()
            number += 1


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{where} is not JSON ({error}): is the file whole?") from error


def _checked(row: Any, where: str) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(row, dict):
        raise DatasetError(f'{where} is no object: expected rows such as {{"text": ...}}')
    return where, row


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise DatasetError(f"{path} is a parquet file, which pyarrow reads: pip install -e '.[data]'") from error
    try:
        number = 0
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=512):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except ArrowException as error:
        raise DatasetError(f"{path} is no whole parquet file: {error}") from error
