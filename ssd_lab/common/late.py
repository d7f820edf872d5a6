"""What a lower room may show or do with a higher one: named here, loaded when it is asked for.

A trace can show its views and a result can be simulated, and neither needs views or simulator to exist; `python -m
ssd_lab.bench` is a command of the command line. This table is the only place where an import points up.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "write_html": "widgets.page",
    "summary_html": "widgets.static_html",
    "view_data": "widgets.view_model",
    "cell_bundle": "widgets.display",
    "compute_metrics": "trace.metrics",
    "simulate": "simulate.simulation",
    "PUBLISHED_70B": "simulate.published",
    "explain": "explain.explaining",
    "app": "cli.main",
}


def late(name: str) -> Any:
    """The function or value of that name, from its room."""
    return getattr(importlib.import_module(f"ssd_lab.{_HOMES[name]}"), name)
