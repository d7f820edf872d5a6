"""How results and traces show themselves as a cell's last value: the linked views, in notebooks that can draw them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from ssd_lab.common.progress import in_notebook
from ssd_lab.trace import Trace

MOST_ROUNDS = 300  # a cell's output is kept in the notebook's file


def cell_bundle(traces: Mapping[str, Trace], summary_html: str) -> dict[str, Any]:
    """What `_repr_mimebundle_` adds to text and HTML: an explorer below `summary_html`, or nothing.

    Nothing outside a notebook's kernel, without anywidget, or where no round was recorded.
    """
    drawn = {name: trace for name, trace in traces.items() if trace.rounds}
    if not drawn or not in_notebook() or importlib.util.find_spec("anywidget") is None:
        return {}
    from ssd_lab.widgets.views import Explorer

    explorer = Explorer(drawn, max_rounds=MOST_ROUNDS, summary=summary_html)
    data, _ = explorer._repr_mimebundle_()
    return {kind: content for kind, content in data.items() if kind.startswith("application/vnd.jupyter.widget")}
