"""What the browser tests share."""

from __future__ import annotations

from typing import Any

WIDTHS = (1280, 390)
THEMES = ("light", "dark")


def no_sideways_scrolling(page: Any) -> bool:
    """Does the page fit its window's width?"""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
