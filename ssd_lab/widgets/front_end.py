"""The packages that widgets need, and what to say where they are not installed."""

from __future__ import annotations

from ssd_lab.errors import ConfigError

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise ConfigError(
        'widgets need anywidget and ipywidgets: pip install "ssd_lab[notebook]"; '
        "without them, trace.to_html(path) writes the same views to a file"
    ) from error

__all__ = ["anywidget", "traitlets"]
