"""Views of traces: step through rounds in a notebook, or in one file without a kernel.

Nothing here knows the engine. A widget needs the extra `notebook`; files and tables need nothing more.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "AcceptanceView": "views", "CacheView": "views", "Explorer": "views", "FeaturesView": "views", "SlotsView": "views",
    "TextView": "views", "Timeline": "views", "TreeStepper": "views", "explore": "views",
    "Overlap": "overlap", "TreeShape": "tree_shape",
    "Playground": "playground", "Race": "views", "Selection": "selection", "SpeedExplorer": "speed_explorer",
    "SpeedMap": "speed_map",
    "html_page": "page", "write_html": "page",
    "Bars": "own", "Chart": "own", "OwnView": "views", "Table": "own", "register_view": "own",
}  # fmt: skip

__all__ = [
    "AcceptanceView",
    "Bars",
    "CacheView",
    "Chart",
    "Explorer",
    "FeaturesView",
    "Overlap",
    "OwnView",
    "Playground",
    "Race",
    "Selection",
    "SlotsView",
    "SpeedExplorer",
    "SpeedMap",
    "Table",
    "TextView",
    "Timeline",
    "TreeShape",
    "TreeStepper",
    "explore",
    "html_page",
    "register_view",
    "write_html",
]


def __getattr__(name: str) -> Any:
    """Load on first use: a file of a trace is made without the packages that widgets need."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ssd_lab.widgets' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"ssd_lab.widgets.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
