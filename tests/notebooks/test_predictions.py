"""Predictions fold what explains them until they are made, hints come in two steps, and a tally keeps count."""

from __future__ import annotations

import json
import re

import pytest

from ssd_lab.errors import ConfigError
from ssd_lab.notebooks import check, hint, notebook_paths, predict, reveal, tally
from ssd_lab.notebooks.exercises import EXERCISES
from ssd_lab.notebooks.hints import HINTS
from ssd_lab.notebooks.journal import JOURNAL, Journal
from ssd_lab.notebooks.predictions import PREDICTIONS


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who has said nothing yet."""
    for name, value in vars(Journal()).items():
        monkeypatch.setattr(JOURNAL, name, value)


def test_an_answer_is_folded_until_something_was_predicted_and_comes_back_to_it():
    assert "in place of the dots" in predict("04-1").line
    folded = reveal("04-1", 40)
    assert folded.folded and "<details" in folded._repr_html_() and "It was 40. The accepted length" in folded.text
    assert predict("04-1", "ten <b>").line == "You expect ten <b>. Go on and see."
    told = reveal("04-1", 3.98765)
    assert told.line == "You expected ten <b>. It was 3.99." and not told.folded
    assert "<details" not in told._repr_html_() and "<b>." not in told._repr_html_()
    assert repr(told).startswith("You expected ten <b>. It was 3.99.\nThe accepted length")


def test_every_prediction_is_asked_and_answered_in_its_notebook_in_this_order():
    asked = []
    for path in notebook_paths():
        code = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        found = re.findall(r'^(predict|reveal)\("(\d\d-\d)"', "\n".join(code), re.MULTILINE)
        for name in {name for _, name in found}:
            assert [what for what, each in found if each == name] == ["predict", "reveal"], f"{path.stem}: {name}"
            assert name.startswith(path.stem[:2])
        asked += [name for what, name in found if what == "predict"]
    assert asked == list(PREDICTIONS)


def test_every_exercise_has_two_hints_that_do_not_repeat_each_other():
    assert set(HINTS) == set(EXERCISES)
    first, second, again = (hint("02-1") for _ in range(3))
    assert first.text == HINTS["02-1"][0] and "ask again" in first.line
    assert second.text == again.text == HINTS["02-1"][1] and "ask again" not in second.line
    assert all(one != two for one, two in HINTS.values())


def test_the_tally_counts_what_was_tried():
    assert tally().lead.startswith("no exercise was tried yet") and tally().rows == []
    assert "<table" not in tally()._repr_html_()
    check("01-1", 4), check("01-1", 5), check("01-1", 5), check("02-1", 0.1), hint("02-1"), predict("04-1", 3)
    assert check("03-1").right is None, "a question is no try"
    assert tally().rows == [["01-1", "✓", "2", "0"], ["02-1", "not yet", "1", "1"]]
    assert tally().lead == "1 of 2 exercises that you tried are right; you made 1 prediction"
    assert "<table" in tally()._repr_html_()


def test_what_does_not_exist_is_told():
    for ask in (predict, reveal):
        with pytest.raises(ConfigError, match="no prediction '99-1'; there are 00-1"):
            ask("99-1")
    with pytest.raises(ConfigError, match="no exercise '99-1'"):
        hint("99-1")
