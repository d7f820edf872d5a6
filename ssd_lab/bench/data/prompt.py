"""One prompt of a set, and the line of JSON that holds it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

KEYS = ("id", "dataset", "text", "reference")


@dataclass(frozen=True)
class BenchPrompt:
    """A prompt without any chat template.

    id: unique within the set, shows the source's row. reference: an answer from the source, if it has one. extra: what
    else the source knows, such as HumanEval's `test` and `entry_point` or a `category`.
    """

    id: str
    dataset: str
    text: str
    reference: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        """One line of JSON, with its line end."""
        record = {"id": self.id, "dataset": self.dataset, "text": self.text, "reference": self.reference, **self.extra}
        return json.dumps(record, ensure_ascii=False) + "\n"
