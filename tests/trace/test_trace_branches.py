"""What a round prepared, read by methods: the branches are those that the next round was drafted from."""

from __future__ import annotations

import itertools

import pytest

import ssd_lab
from ssd_lab.errors import ConfigError


@pytest.fixture(scope="module")
def run() -> ssd_lab.RunResult:
    """Asynchronous, on the bundled models."""
    return ssd_lab.run(
        ["Explain gravity to a child.", "Why is the sky blue?"], strategy="async_tree", k=3, f=2, max_tokens=32,
        threads=1, draft_link="thread", progress=False,
    )  # fmt: skip


def test_a_branch_that_was_prepared_for_the_outcome_is_what_the_next_round_verifies(run: ssd_lab.RunResult):
    seen = 0
    for prompt in (0, 1):
        rounds = run.rounds(prompt)
        for before, after in itertools.pairwise(rounds):
            cache = {branch.outcome: branch.tokens for branch in before.branches()}
            assert len(cache) == 4 * 2, "two recovery tokens at each of four accepted lengths"
            assert after.cache_hit == (before.outcome in cache)
            if after.cache_hit and len(after.draft_tokens) == 3:
                assert cache[before.outcome] == after.draft_tokens
                seen += 1
    assert seen > 3


def test_rounds_are_counted_from_one_and_their_tokens_have_texts(run: ssd_lab.RunResult):
    first = run.round(1)
    assert first == run.rounds()[0] and run.decode(first.draft_tokens) == "".join(run.words(first.draft_tokens))
    everything = [t for row in run.rounds(1) for t in [*row.draft_tokens[: row.num_accepted], row.recovery_token]]
    assert run.decode(everything).strip().startswith(run.outputs[1].text.strip()[:20])
    assert run.words([10**9]) == ["#1000000000"]
    with pytest.raises(ConfigError, match="no round 0; prompt 0 has rounds 1 to"):
        run.round(0)
    with pytest.raises(ConfigError, match="no prompt 2; this run had 2"):
        run.rounds(2)


def test_strategies_that_prepare_nothing_have_no_branches():
    run = ssd_lab.run("How far?", strategy="sync_tree", max_tokens=8, threads=1, progress=False)
    assert all(row.branches() == [] for row in run.rounds())
