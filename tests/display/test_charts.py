"""Charts show what they are given, at the places that its numbers say."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from ssd_lab.display.charts import BarValue, Line, bar_chart, line_chart
from ssd_lab.display.svg import Axis, round_step

SVG = "{http://www.w3.org/2000/svg}"


def test_a_line_chart_leaves_out_what_a_logarithm_cannot_show():
    lines = [Line("a < b", [(0, 1), (1, 10), (10, 100)])]
    root = ElementTree.fromstring(line_chart(lines, title="t & u", x_title="x", y_title="y", log_x=True, log_y=True))
    line = next(root.iter(f"{SVG}polyline"))
    assert len(line.attrib["points"].split()) == 2
    dots = [dot[0].text for dot in root.iter(f"{SVG}circle")]
    assert dots == ["a < b: 1, 10", "a < b: 10, 100"]


def test_lines_of_one_chart_differ_in_colour_and_fits_are_dashed():
    lines = [
        Line("one", [(0, 0), (1, 1)]),
        Line("two", [(0, 1), (1, 0)]),
        Line("fit", [(0, 0), (1, 1)], True, False, 0),
    ]
    root = ElementTree.fromstring(line_chart(lines, title="t", x_title="x", y_title="y", from_zero=True))
    one, two, fit = root.iter(f"{SVG}polyline")
    assert one.attrib["stroke"] == fit.attrib["stroke"] != two.attrib["stroke"]
    assert "stroke-dasharray" in fit.attrib and "stroke-dasharray" not in one.attrib
    assert len(list(root.iter(f"{SVG}circle"))) == 4


@pytest.mark.parametrize("lines", [[], [Line("one", [(3, 3)])], [Line("flat", [(0, 0), (1, 0)])]])
def test_charts_of_little_are_charts_too(lines: list[Line]):
    for from_zero in (False, True):
        ElementTree.fromstring(line_chart(lines, title="t", x_title="x", y_title="y", from_zero=from_zero))


def test_bars_are_as_high_as_their_values_and_whiskers_reach_their_intervals():
    series = {
        "a": {"x": BarValue(2.0, 1.0, 3.0, "two"), "y": BarValue(4.0, None, None, "four")},
        "b": {"y": BarValue(1.0, None, None, "one")},
    }
    root = ElementTree.fromstring(bar_chart(["x", "y"], series, title="t"))
    heights = {box[0].text: float(box.attrib["height"]) for box in root.iter(f"{SVG}rect") if len(box)}
    assert heights["four"] == pytest.approx(2 * heights["two"], abs=0.2)
    assert heights["two"] == pytest.approx(2 * heights["one"], abs=0.2)
    whiskers = [path for path in root.iter(f"{SVG}path") if path.attrib.get("stroke") == "#222"]
    assert len(whiskers) == 1


@pytest.mark.parametrize(
    ("span", "parts", "step"), [(1, 6, 0.2), (10, 6, 2), (60, 6, 10), (61, 6, 20), (0.03, 12, 0.005), (100, 10, 10)]
)
def test_axes_are_divided_by_round_numbers(span: float, parts: int, step: float):
    assert round_step(span, parts) == pytest.approx(step)


def test_an_axis_from_zero_ends_at_a_round_number_above():
    axis = Axis.from_zero(473.0, 0.0, 1.0)
    assert (axis.high, axis.ticks()[-1], axis.at(250.0)) == (500.0, 500.0, 0.5)
    assert Axis.from_zero(100.0, 0.0, 1.0).high == 100.0
