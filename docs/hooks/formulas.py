"""Formulas as MathML, made when the site is built: browsers draw them without a script or a font from elsewhere."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

_SPAN = re.compile(r'<span class="arithmatex">\\\((.+?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.+?)\\\]\s*</div>', re.DOTALL)
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
_DOLLARS = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\w$])", re.DOTALL)


def mathml(tex: str, *, display: bool) -> str:
    """One formula; the wide ones of a block scroll by themselves, so that a narrow page does not."""
    drawn = convert(tex.strip(), display="block" if display else "inline")
    return f'<div class="formula" tabindex="0">{drawn}</div>' if display else drawn


def replace_dollars(markdown: str) -> str:
    """Markdown whose `$...$` and `$$...$$` outside code have become MathML."""

    def formula(match: re.Match[str]) -> str:
        return mathml(match[1] or match[2], display=match[1] is not None)

    pieces = _CODE.split(markdown)
    return "".join(piece if index % 2 else _DOLLARS.sub(formula, piece) for index, piece in enumerate(pieces))


def on_page_content(html: str, **_: Any) -> str:
    """What pymdownx.arithmatex marked becomes MathML."""
    html = _BLOCK.sub(lambda match: mathml(unescape(match[1]), display=True), html)
    return _SPAN.sub(lambda match: mathml(unescape(match[1]), display=False), html)
