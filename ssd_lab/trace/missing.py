"""What a trace lacks: a part that could not be made is named in it, and costs nobody the rest."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KEY = "missing"
MOST_NAMED = 20  # the fault is mostly the same each round


class MissingParts:
    """Collects the parts of one trace that could not be made, each with its reason."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What fails within is left out. Any error: the outputs are finished, and a trace is only about them."""
        try:
            yield
        except Exception as error:
            self.reasons.append(f"{name}: {type(error).__name__}: {error}")

    def noted(self, meta: dict[str, Any]) -> dict[str, Any]:
        """The trace's meta with these parts after those that it names already; warns if there are any."""
        if not self.reasons:
            return meta
        warnings.warn(
            f"the trace lacks {len(self.reasons)} of its parts ({self.reasons[0]}); meta[{KEY!r}] names them, and the "
            "outputs are not concerned",
            RuntimeWarning,
            stacklevel=2,
        )
        named = [*meta.get(KEY, ()), *self.reasons]
        return {**meta, KEY: named[:MOST_NAMED] + [f"and {len(named) - MOST_NAMED} more"] * (len(named) > MOST_NAMED)}
