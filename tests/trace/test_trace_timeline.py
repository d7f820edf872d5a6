"""The picture of rounds shows what the trace says."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from trace_samples import round_record, sequence_round

from ssd_lab.display.timeline import timeline_svg
from ssd_lab.trace import Activity, Trace

SVG = "{http://www.w3.org/2000/svg}"


def trace_of(*activities: Activity) -> Trace:
    import dataclasses

    record = round_record(0, 0.0, 0.010, sequence_round(3))
    return Trace({}, [], [dataclasses.replace(record, activities=list(activities))])


def test_bars_are_as_long_as_their_time() -> None:
    trace = trace_of(Activity("target", "verify", 0.0, 0.004), Activity("draft", "tree", 0.0, 0.008))
    root = ElementTree.fromstring(timeline_svg({"run": trace}, first=0, span_s=0.010))
    bars = {bar[0].text.split(":")[0]: float(bar.get("width")) for bar in root.iter(f"{SVG}rect") if len(bar)}
    assert abs(bars["draft prepares for the outcomes"] / bars["target verifies"] - 2) < 0.01


def test_an_empty_trace_is_a_picture_too() -> None:
    assert "no rounds" in timeline_svg({"run": Trace({})})


def test_names_are_escaped() -> None:
    ElementTree.fromstring(timeline_svg({"a < b & c": trace_of(Activity("target", "verify", 0.0, 0.004))}, first=0))
