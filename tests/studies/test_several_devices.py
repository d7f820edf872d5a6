"""The studies of links and of lost drafts, with fewer of everything."""

from __future__ import annotations

import random
import warnings

import pytest

from ssd_lab import LLM
from studies.several_devices.kill_drafts import PARAMS, Counted, kill_some, texts_of
from studies.several_devices.link_times import there_and_back


@pytest.mark.full
def test_both_ways_carry_the_same_messages() -> None:
    times = there_and_back(4, 64, trips=20)
    assert times.keys() == {"socket", "memory"} and min(times.values()) > 0


@pytest.mark.extended
@pytest.mark.full
@pytest.mark.timeout(900)
def test_killed_drafts_cost_no_token_and_leave_nothing() -> None:
    with LLM(strategy="autoregressive", dtype="float32", threads=1, progress=False) as llm:
        expected = [texts_of(llm, params) for params in PARAMS]
    counted = Counted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        kill_some(counted, 12, random.Random(1), expected)
    assert (counted.kills, counted.wrong_texts, counted.leftovers) == (12, 0, 0)
