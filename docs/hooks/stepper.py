"""The recorded run in the first screen of the site: one page without a kernel or a network, made from a saved trace."""

from __future__ import annotations

import executed
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from ssd_lab.trace import load_trace
from ssd_lab.trace.timeline import timeline_svg

TRACE = executed.ROOT / "docs" / "traces" / "async_tree.jsonl.gz"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page that the home page shows in a frame."""
    files.append(File.generated(config, "assets/stepper.html", content=_page()))
    return files


def _page() -> str:
    picture = timeline_svg({"async_tree": load_trace(TRACE)})
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>A recorded run</title>{picture}</html>'
