"""The map of asynchronous over synchronous speed in a browser: its cross by mouse and by keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browser_pages import no_sideways_scrolling

from ssd_lab.widgets import SpeedMap
from ssd_lab.widgets.bundle import bundle, style
from ssd_lab.widgets.view_model.speed_map import gain_at

pytestmark = pytest.mark.browser
MODEL = (
    "{ get: (name) => state[name], set: (name, value) => { state[name] = value; }, save_changes() {}, "
    "on() {}, off() {} }"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    widget = SpeedMap()
    state = json.dumps({name: getattr(widget, name) for name in ("kind", "points", "picture", "frame", "place")})
    script = bundle("widget", f"const state = {state}; in_widget.render({{ model: {MODEL}, el: document.body }});")
    path: Path = tmp_path_factory.mktemp("map") / "map.html"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>map</title><style>{style()}</style>'
    path.write_text(f"{head}<body></body><script>{script}</script></html>", encoding="utf-8")
    return path.as_uri()


@pytest.mark.quick("390")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_cross_says_what_the_formula_says(open_page: Any, address: str, width: int):
    with open_page(address, width=width) as page:
        said = page.locator("[data-gain]")
        hits = page.get_by_label("hits", exact=True)
        hits.fill("0.5")
        draft_time = SpeedMap().place["draft_time"]  # the slider's own steps are coarser
        assert float(said.get_attribute("data-gain")) == pytest.approx(gain_at(draft_time, 0.5), abs=0.001)
        hits.press("ArrowRight")
        assert float(said.get_attribute("data-gain")) == pytest.approx(gain_at(draft_time, 0.51), abs=0.001)
        box = page.locator(".ssd-map svg").bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.3)
        assert hits.input_value() != "0.51", "the sliders follow the mouse"
        assert no_sideways_scrolling(page)
