"""JupyterLab's setting by which a saved notebook keeps its views, so that it shows them when it is opened again."""

from __future__ import annotations

import json
from pathlib import Path

_PLUGIN = "@jupyter-widgets/jupyterlab-manager/plugin.jupyterlab-settings"


def keep_views() -> Path | None:
    """Let JupyterLab save widgets with their notebook; returns the settings file that was written.

    None where the reader has settings of widgets already: those are left alone. Needs JupyterLab.
    """
    from jupyterlab.commands import get_user_settings_dir

    path = Path(get_user_settings_dir()) / _PLUGIN
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"saveState": True}, indent=4) + "\n", encoding="utf-8")
    return path
