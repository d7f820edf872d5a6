"""The widgets that draw ideas, without a browser: their numbers, their tables, and what is refused."""

from __future__ import annotations

import pytest
import torch
from recorded_traces import recorded_trace

from ssd_lab.decoding.saguaro import expected_hit_and_acceptance, saguaro_distribution
from ssd_lab.decoding.topology import from_widths
from ssd_lab.errors import ConfigError
from ssd_lab.trace import RoundRecord, SequenceRound, Trace, TreeRecord
from ssd_lab.widgets import FeaturesView, Overlap, SlotsView, TreeShape

WORDS = ["cat", "dog", "owl", "fox", "bee", "ant"]
P = [0.34, 0.28, 0.16, 0.12, 0.06, 0.04]
Q = [0.40, 0.30, 0.09, 0.08, 0.07, 0.06]


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.0])
def test_an_overlaps_numbers_are_the_formulas(factor: float):
    p, q = torch.tensor(P), torch.tensor(Q)
    shown = Overlap(WORDS, p, q, fan_out=2, factor=factor)
    told = expected_hit_and_acceptance(p[None], q[None], 2, factor)
    assert shown.acceptance == pytest.approx(told.acceptance, abs=1e-6)
    assert shown.used == pytest.approx(saguaro_distribution(q, torch.tensor(2), factor, 2).tolist(), abs=1e-6)
    rows = shown.table().rows
    assert [row[0] for row in rows] == WORDS and sum(float(row[-1]) for row in rows) == pytest.approx(1, abs=0.004)
    shown.target = list(shown.used)
    assert shown.acceptance == pytest.approx(1) and "Kept: 100.0%" in repr(shown)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"draft": Q[:5]}, "draft has 5 probabilities, and there are 6 words"),
        ({"target": [1.0, 1, 0, 0, 0, 0]}, "sums to 2.000"),
        ({"fan_out": 6}, "0 to 5 can be prepared"),
        ({"factor": 1.5}, "C lies between 0 and 1"),
    ],
)
def test_what_is_no_distribution_is_refused(given: dict, words: str):
    options = {"target": P, "draft": Q, **given}
    with pytest.raises(ConfigError, match=words):
        Overlap(WORDS, options.pop("target"), options.pop("draft"), **options)


def test_a_trees_shape_says_who_sees_whom():
    shape = TreeShape(from_widths([2, 1]))
    assert shape.words == ["1st", "2nd", "1st", "1st"]
    assert [row[-1] for row in shape.table().rows] == ["-", "-", "0", "1"]
    with pytest.raises(ConfigError, match="4 nodes, and 1 words"):
        TreeShape(shape.parents, ["a"])
    with pytest.raises(ConfigError, match="without nodes"):
        TreeShape([])


def test_slots_of_a_round_are_counted():
    trace = recorded_trace(rounds=6, seed=3)
    record = trace.rounds[2].sequences[0]
    view = SlotsView(trace)
    view.select(round=3)
    held, written, kept, back = (int(row[1]) for row in view.tables()[0].rows)
    assert (held, written) == (record.position - 1, 5)
    assert (kept, back) == (record.num_accepted + 1, 4 - record.num_accepted)
    tree = TreeRecord([10, 20, 11], [-1, -1, 0], [0.5, 0.3, 0.4], [0.6, 0.1, 0.7])
    row = SequenceRound(0, 4, [10, 11], [0.5, 0.4], [0.6, 0.7], 2, 99, 0.9, 3, "draft", tree=tree)
    rows = SlotsView(Trace({"exact": True}, rounds=[RoundRecord(0, 0.0, 1.0, [row])])).tables()[0].rows
    assert [row[1] for row in rows] == ["3", "4", "3", "1"]


def test_features_are_told_of_runs_that_read_them():
    trace = recorded_trace(rounds=6, seed=3)
    assert FeaturesView(trace).tables()[0].rows == []
    read = Trace({**trace.meta, "features": {"layers": [2, 4, 6], "of": 8}}, trace.requests, trace.rounds)
    view = FeaturesView(read)
    origins = [record.sequences[0].origin for record in trace.rounds]
    for number, origin in enumerate(origins, 1):
        view.select(round=number)
        first, *others = [row[1] for row in view.tables()[0].rows]
        assert first == ("own state" if origin == "hit" else "features at the inputs of layers 2, 4, 6")
        assert set(others) == {"own state"}
    assert set(origins) > {"hit"}
