"""The pictures of ideas in a browser: moved by pointer, finger and keys, and what they say beside Python's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from browser_pages import THEMES, WIDTHS, no_sideways_scrolling
from recorded_traces import recorded_trace

from ssd_lab.decoding.saguaro import expected_hit_and_acceptance
from ssd_lab.decoding.topology import from_widths
from ssd_lab.trace import load_trace
from ssd_lab.widgets import Overlap, TreeShape
from ssd_lab.widgets.bundle import bundle, style
from ssd_lab.widgets.page import write_html

pytestmark = pytest.mark.browser
TRACES = Path(__file__).resolve().parents[2] / "docs" / "traces"
WORDS = ["cat", "dog", "owl", "fox", "bee", "ant"]
P = [0.34, 0.28, 0.16, 0.12, 0.06, 0.04]
Q = [0.40, 0.30, 0.09, 0.08, 0.07, 0.06]
DRAW = """const modelOf = (state) => ({
  get: (name) => state[name], set: (name, value) => { state[name] = value; }, save_changes() {}, on() {}, off() {},
});
for (const state of Object.values(states)) {
  const el = document.createElement("div");
  document.querySelector("main").append(el);
  in_widget.render({ model: modelOf(state), el });
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An overlap and a shape on one page; what they tell their kernel is in `states`."""
    shape = TreeShape(from_widths([3, 2, 1]), [f"w{node}" for node in range(15)])
    overlap = Overlap(WORDS, P, Q, fan_out=2)
    names = {"overlap": ("kind", "words", "target", "draft", "fan_out", "factor")}
    names["shape"] = ("kind", "parents", "words", "chosen")
    states = {one.kind: {name: getattr(one, name) for name in names[one.kind]} for one in (overlap, shape)}
    script = bundle("widget", f"globalThis.states = {json.dumps(states)}; {DRAW}")
    path: Path = tmp_path_factory.mktemp("pictures") / "pictures.html"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>pictures</title><style>{style()}</style>'
    path.write_text(
        f"{head}<body><main><h1>pictures</h1></main></body><script>{script}</script></html>", encoding="utf-8"
    )
    return path.as_uri()


def told(page: Any, name: str) -> float:
    return float(page.locator(f"[data-overlap={name}]").inner_text().split()[0])


@pytest.mark.quick("390-dark")
@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_p_and_q_are_moved_and_the_words_follow(
    open_page: Any, address: str, keep_picture: Any, width: int, theme: str
):
    p, q = torch.tensor([P]), torch.tensor([Q])
    with open_page(address, width=width, theme=theme) as page:
        for factor in (1.0, 0.5, 0.0):
            page.get_by_label("Saguaro factor C").fill(str(factor))
            right = expected_hit_and_acceptance(p, q, 2, factor)
            assert told(page, "kept") == pytest.approx(100 * right.acceptance, abs=0.06)
            assert told(page, "hits") == pytest.approx(100 * right.hit_after_rejection, abs=0.06)
        page.get_by_label("Saguaro factor C").fill("1")
        keep_picture(page, f"pictures-{width}-{theme}")
        grip = page.get_by_label("q of dog")
        grip.focus()
        grip.press("ArrowUp")
        grip.press("PageDown")
        assert page.evaluate("states.overlap.draft")[1] == pytest.approx(0.21)
        box = grip.bounding_box()
        at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.move(*at)
        page.mouse.down()
        page.mouse.move(at[0], at[1] - 40)
        page.mouse.up()
        changed = page.evaluate("states.overlap.draft")
        assert changed[1] > 0.25 and sum(changed) == pytest.approx(1)
        right = expected_hit_and_acceptance(p, torch.tensor([changed]), 2, 1.0)
        assert told(page, "kept") == pytest.approx(100 * right.acceptance, abs=0.06)
        page.get_by_role("button", name="as at the start").click()
        assert page.evaluate("states.overlap.draft") == Q
        assert no_sideways_scrolling(page)


def test_a_node_and_its_row_of_the_mask_are_chosen_together(open_page: Any, address: str):
    with open_page(address) as page:
        page.locator("[data-node='3']").click()
        assert page.locator(".ssd-drawn-node.on-path").count() == 2, "itself, and the node it follows"
        assert page.locator("td.on-path").evaluate_all("(cells) => cells.map((cell) => cell.dataset.cell)") == [
            "3 0",
            "3 3",
        ]
        page.keyboard.press("ArrowRight")
        assert page.evaluate("states.shape.chosen") == 4 and page.locator("[data-node='4']").evaluate(
            "(node) => node === document.activeElement"
        )
        page.locator(".ssd-mask tbody tr").nth(14).click()
        assert page.evaluate("states.shape.chosen") == 14 and "w8" in page.locator(".ssd-shape-parts + p").inner_text()


@pytest.mark.quick("1280")
@pytest.mark.parametrize("width", WIDTHS)
def test_slots_show_what_a_round_keeps(open_page: Any, tmp_path: Path, keep_picture: Any, width: int):
    trace = recorded_trace(rounds=12, seed=3)
    with open_page(write_html(trace, tmp_path / "slots.html").as_uri(), width=width, theme=THEMES[width < 600]) as page:
        slots = page.locator("section.ssd-slots")
        for number, record in enumerate(r.sequences[0] for r in trace.rounds):
            page.get_by_label("Round", exact=True).fill(str(number))
            assert slots.locator(".the-pass td.written").count() == 5
            assert slots.locator(".after td.accepted").count() == record.num_accepted
            assert slots.locator(".after td.next").inner_text().startswith("◆")
        slots.locator(".the-pass button").first.click()
        assert page.locator(".ssd-tree [aria-selected=true]").get_attribute("data-place") == "draft:0"
        assert no_sideways_scrolling(page)
        keep_picture(slots, f"slots-{width}")


def test_the_flow_into_an_eagle3_heads_guesses(open_page: Any, tmp_path: Path, keep_picture: Any):
    trace = load_trace(TRACES / "eagle3.jsonl.gz")
    with open_page(write_html(trace, tmp_path / "eagle3.html").as_uri() + "#round=2") as page:
        flow = page.locator("section.ssd-features")
        assert "features of the token before" in flow.locator(".ssd-lead").inner_text()
        taps = flow.locator(".ssd-tap").count()
        assert taps == len(trace.meta["features"]["layers"]) == 3
        slider = flow.get_by_role("slider")
        slider.focus()
        slider.press("ArrowRight")
        assert "own state takes the place of g" in flow.locator(".ssd-lead").inner_text()
        assert flow.locator(".head.on").count() == 1 and flow.locator(".join.on").count() == 0
        keep_picture(flow, "features")


def test_a_verified_tree_is_drawn_and_its_nodes_can_be_chosen(open_page: Any, tmp_path: Path, keep_picture: Any):
    trace = load_trace(TRACES / "tree.jsonl.gz")
    number, record = next(
        (i, r.sequences[0]) for i, r in enumerate(trace.rounds) if 0 < r.sequences[0].num_accepted < 4
    )
    with open_page(write_html(trace, tmp_path / "tree.html").as_uri() + f"#round={number + 1}", width=390) as page:
        drawn = page.locator(".ssd-drawn")
        assert drawn.locator("[data-node]").count() == len(record.tree.tokens) + 1, "and the target's own token"
        assert drawn.locator(".ssd-drawn-node.accepted").count() == record.num_accepted
        first = drawn.locator("[data-node='0']")
        first.focus()
        page.keyboard.press("ArrowDown")
        assert page.locator(".ssd-tree [aria-selected=true]").get_attribute("data-place") == "node:1"
        assert drawn.locator("[data-node='1']").evaluate("(node) => node === document.activeElement")
        assert no_sideways_scrolling(page)
        keep_picture(page, "tree-drawn-390")
