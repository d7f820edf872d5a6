"""Progress bars for anything that takes longer than a reader waits gladly; in a notebook, a terminal, or nowhere."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from tqdm.auto import tqdm

DELAY_S = 2.0
NOTEBOOK_DELAY_S = 20.0  # its cells are kept and read: a bar there is for what takes long


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
    """A tqdm bar that shows itself only once the work has taken two seconds, in a notebook twenty, if at all.

    unit_scale writes M and G; layout is tqdm's `bar_format`.
    """
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=unit_scale,
        disable=not enabled,
        delay=NOTEBOOK_DELAY_S if in_notebook() else DELAY_S,
        leave=False,
        dynamic_ncols=True,
        bar_format=layout,
    )


def in_notebook() -> bool:
    """Is there a kernel, with a page that could draw?"""
    if importlib.util.find_spec("IPython") is None:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")
