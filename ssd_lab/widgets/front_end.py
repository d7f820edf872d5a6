"""The packages that widgets need, what to say where they are not installed, and what all widgets share."""

from __future__ import annotations

from typing import Any

from ssd_lab.errors import ConfigError
from ssd_lab.widgets.bundle import style, widget_module

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise ConfigError(
        'widgets need anywidget and ipywidgets: in the checkout, pip install -e ".[notebook]" brings them; '
        "without them, trace.to_html(path) writes the same views to a file"
    ) from error

__all__ = ["TabularWidget", "anywidget", "traitlets"]


class TabularWidget(anywidget.AnyWidget):
    """Base of widgets that are tables where no front end draws them: `__repr__` and `_repr_html_` say how."""

    _esm = widget_module()
    _css = style()

    def _repr_html_(self) -> str:
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and its tables."""
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, "text/plain": repr(self), "text/html": self._repr_html_()}, metadata
