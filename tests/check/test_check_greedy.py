"""Counting differences, and strategies checked end to end at temperature 0."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from ssd_lab.check import Extent, check
from ssd_lab.check.greedy import compare_tokens
from ssd_lab.check.prompts import check_prompts
from ssd_lab.check.subjects import resolve, with_knobs
from ssd_lab.errors import ConfigError
from ssd_lab.strategies import Context, SequenceStrategy

GREEDY = Extent(num_prompts=3, max_tokens=20, batches=(1, 4), temperatures=())


def test_differing_tokens_are_counted_to_the_end():
    assert compare_tokens([[1, 2, 3]], [[1, 2, 3]]) == (0, [])
    assert compare_tokens([[1, 2, 3, 4], [5]], [[1, 9, 3, 8], [5]]) == (2, [(0, 1)])
    assert compare_tokens([[1, 2, 3]], [[1]]) == (2, [(0, 1)])
    assert compare_tokens([[1], [2]], [[1, 7], [3]]) == (2, [(0, 1), (1, 0)])


def test_there_are_over_two_hundred_different_prompts():
    assert len(set(check_prompts(220))) == 220
    assert len(check_prompts(500)) == 500


def test_every_exact_strategy_gives_the_autoregressive_tokens(tiny_pair: Any):
    report = check(
        ["sync_chain", {"strategy": "async_tree", "k": 3, "f": 2}, "prompt_lookup"],
        target=tiny_pair.target, draft=tiny_pair.draft, dtype="float32", extent=GREEDY, progress=False,
        draft_link="inline", threads=1,
    )  # fmt: skip
    assert [(r.strategy, r.batch, r.num_differing_tokens) for r in report.greedy] == [
        ("autoregressive", 4, 0),
        ("sync_chain", 1, 0), ("sync_chain", 4, 0),
        ("async_tree (f=2, k=3)", 1, 0), ("async_tree (f=2, k=3)", 4, 0),
        ("prompt_lookup", 1, 0), ("prompt_lookup", 4, 0),
    ]  # fmt: skip
    assert all(result.num_tokens == 3 * 20 for result in report.greedy)
    assert report.same
    assert report.verdict().startswith("NO DIFFERENCE FOUND: 0 differing tokens")


def test_differences_come_with_the_logit_gap(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    from ssd_lab.decoding import acceptance
    from ssd_lab.kernels.torch_kernels import TorchKernels

    right = TorchKernels.accept_greedy

    def keep_one_more(self: Any, target: Any, drafted: Any, limit: Any) -> acceptance.Outcome:
        """Accept one draft token too many."""
        outcome = right(self, target, drafted, limit)
        return acceptance.Outcome((outcome.num_accepted + 1).minimum(limit), outcome.recovery_token)

    monkeypatch.setattr(TorchKernels, "accept_greedy", keep_one_more)
    report = check(
        ["sync_chain"],
        target=tiny_pair.target,
        draft=tiny_pair.draft,
        dtype="float32",
        extent=GREEDY,
        progress=False,
        threads=1,
    )
    wrong = [result for result in report.different if result.strategy == "sync_chain"]
    assert len(wrong) == 2
    first = wrong[0].first_differences[0]
    assert first.logit_gap is not None
    assert first.logit_gap > 0.01
    assert not report.same
    assert "NOT THE SAME" in report.verdict()


class AlwaysSeven(SequenceStrategy):
    """A user's own: guesses that the token 7 comes next."""

    strategy_name: ClassVar[str] = "always_seven"

    @property
    def lookahead(self) -> int:
        return 1

    def draft(self, context: Context) -> list[int]:
        return [7]


def test_a_custom_strategy_can_be_checked(tiny_pair: Any):
    report = check([AlwaysSeven()], target=tiny_pair.target, dtype="float32", extent=GREEDY, progress=False, threads=1)
    assert {result.strategy for result in report.greedy} == {"autoregressive", "always_seven"}
    assert report.same


def test_labels_say_what_was_set():
    labels = list(resolve(["sync_chain", {"strategy": "async_tree", "fallback": "fast", "f": 2}]))
    assert labels == ["sync_chain", "async_tree (f=2, fallback=fast)"]


def test_knobs_go_to_the_strategies_that_have_them():
    entries, engine = with_knobs(["prompt_lookup", {"strategy": "async_tree", "k": 2}], {"k": 4, "f": 1, "threads": 1})
    assert entries == [{"strategy": "prompt_lookup", "k": 4}, {"strategy": "async_tree", "k": 2, "f": 1}]
    assert engine == {"threads": 1}
    with pytest.raises(ConfigError, match="unknown field 'g'"):
        with_knobs(["prompt_lookup"], {"g": 4})
