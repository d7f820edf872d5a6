"""What is compared is compared fairly: the same threads, and as many turns as there is time for."""

from __future__ import annotations

from typing import Any

import pytest

import ssd_lab
from ssd_lab.api import MOST_TURNS, turns_for
from ssd_lab.errors import ConfigError

WORK: dict[str, Any] = {"max_tokens": 12, "dtype": "float32", "progress": False, "ignore_eos": True}


def test_every_strategy_computes_with_the_same_threads_and_is_repeated(tiny_pair: Any):
    found = ssd_lab.compare(
        ["How far?"], strategies=["autoregressive", {"strategy": "sync_chain", "k": 2}, "async_tree"],
        target=tiny_pair.target, draft=tiny_pair.draft, repeats=2, device="cpu", draft_link="thread", **WORK,
    )  # fmt: skip
    threads = {name: run.trace.meta["threads"] for name, run in found.runs.items()}
    assert len(set(threads.values())) == 1 and min(threads.values()) >= 1
    assert all(len(run.turns) == 2 for run in found.runs.values())
    assert all(row["same_text"] == 1 and row["num_turns"] == 2 for row in found.rows())
    assert "a draft that works meanwhile has its own" in str(found)


def test_given_threads_are_taken(tiny_pair: Any):
    found = ssd_lab.compare(
        ["How far?"], strategies=["autoregressive", "sync_chain"], target=tiny_pair.target, draft=tiny_pair.draft,
        threads=1, repeats=1, device="cpu", **WORK,
    )  # fmt: skip
    assert {run.trace.meta["threads"] for run in found.runs.values()} == {1}
    assert all(run.turns == () for run in found.runs.values())


def test_the_same_seed_gives_the_same_text_in_every_turn(tiny_pair: Any):
    options = {"strategy": "sync_chain", "k": 2, "temperature": 1.0, "seed": 5, "target": tiny_pair.target}
    once, thrice = (ssd_lab.run(["How far?"], draft=tiny_pair.draft, repeats=n, **options, **WORK) for n in (1, 3))
    assert once.outputs[0].token_ids == thrice.outputs[0].token_ids
    assert len(thrice.turns) == 3 and thrice.metrics.num_rounds == once.metrics.num_rounds


@pytest.mark.parametrize(("first_s", "turns"), [(0.0, MOST_TURNS), (0.5, MOST_TURNS), (2.0, 3), (2.1, 1), (600.0, 1)])
def test_long_runs_are_not_repeated(first_s: float, turns: int):
    assert turns_for(first_s) == turns


def test_no_turns_are_refused_before_anything_is_loaded():
    with pytest.raises(ConfigError, match="repeats is 0"):
        ssd_lab.run("Hi", repeats=0, target="nowhere")


def test_a_wrong_strategy_is_told_before_the_first_one_runs(tiny_pair: Any):
    with pytest.raises(ConfigError, match="k"):
        ssd_lab.compare(
            ["Hi"], strategies=["autoregressive", {"strategy": "sync_chain", "k": 0}],
            target=tiny_pair.target, draft=tiny_pair.draft, device="cpu", **WORK,
        )  # fmt: skip
