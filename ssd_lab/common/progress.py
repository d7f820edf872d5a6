"""Progress bars for anything that may take over two seconds; in a notebook, a terminal, or nowhere."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm


def notice(text: str, *, enabled: bool) -> None:
    """Lines for a person who waits, on stderr, above the bars."""
    if enabled:
        tqdm.write(text, file=sys.stderr)


def progress_bar(
    total: int | None,
    description: str,
    unit: str,
    *,
    enabled: bool,
    unit_scale: bool = False,
    layout: str | None = None,
) -> Any:
    """A tqdm bar that shows itself only once the work has taken two seconds, if at all.

    unit_scale writes M and G; layout is tqdm's `bar_format`.
    """
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=unit_scale,
        disable=not enabled,
        delay=2.0,
        leave=False,
        dynamic_ncols=True,
        bar_format=layout,
    )
