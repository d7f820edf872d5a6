"""A file of JSON documents, one a line, that grows while a program works and outlives its sudden end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class JsonLines:
    """The file need not be there. Raises OSError for a place that cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Any]:
        """Every document. A line that was being written when the program died is dropped from the file, too; a
        ValueError tells of any other that is no JSON.
        """
        content = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        whole = content[: content.rfind("\n") + 1]
        if whole != content:
            self.path.write_text(whole, encoding="utf-8")
        return [json.loads(line) for line in whole.splitlines()]

    def add(self, *documents: Any) -> None:
        """Behind the others, and on the disk before this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(document, default=str) + "\n" for document in documents)
            file.flush()
            os.fsync(file.fileno())
