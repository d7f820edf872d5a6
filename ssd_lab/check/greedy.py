"""Temperature 0: are the tokens those of autoregressive decoding, at every batch size?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from ssd_lab.config import SamplingParams
from ssd_lab.llm import LLM
from ssd_lab.results import Output


@dataclass(frozen=True)
class FirstDifference:
    """Where a sequence first differs from the autoregressive one.

    position: which generated token. logit_gap: the target's logit of the expected token minus that of the one that
    came, after the same text: near 0 is a tie that rounding can flip, anything larger is a fault. None if one text
    ended where the other went on.
    """

    prompt: int
    position: int
    expected: int | None
    got: int | None
    logit_gap: float | None


@dataclass(frozen=True)
class GreedyResult:
    """One strategy at one batch size against autoregressive decoding at batch 1. degraded: why it lost its draft."""

    strategy: str
    batch: int
    num_sequences: int
    num_tokens: int
    num_differing_tokens: int
    num_differing_sequences: int
    first_differences: list[FirstDifference] = field(default_factory=list)
    degraded: str | None = None

    @property
    def same(self) -> bool:
        """Not one token differs."""
        return self.num_differing_tokens == 0 and self.degraded is None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GreedyResult:
        """From what `dataclasses.asdict` made of one."""
        return cls(**{**data, "first_differences": [FirstDifference(**first) for first in data["first_differences"]]})


def compare_tokens(
    expected: Sequence[Sequence[int]], got: Sequence[Sequence[int]]
) -> tuple[int, list[tuple[int, int]]]:
    """How many tokens differ (a missing one differs), and (sequence, position) of each sequence's first difference."""
    places = [
        [place for place, (one, other) in enumerate(zip_longest(ours, theirs)) if one != other]
        for ours, theirs in zip(expected, got, strict=True)
    ]
    return sum(map(len, places)), [(index, own[0]) for index, own in enumerate(places) if own]


def compare_greedy(
    llm: LLM, label: str, prompts: Sequence[Any], params: SamplingParams, expected: Sequence[list[int]]
) -> GreedyResult:
    """Run a strategy and count where its texts differ from the expected ones."""
    result = llm.run(list(prompts), params).whole()
    differing, firsts = compare_tokens(expected, [output.token_ids for output in result.outputs])
    return GreedyResult(
        strategy=label,
        batch=llm.config.max_batch,
        num_sequences=len(expected),
        num_tokens=sum(map(len, expected)),
        num_differing_tokens=differing,
        num_differing_sequences=len(firsts),
        first_differences=[_explain(llm, i, place, expected[i], result.outputs[i]) for i, place in firsts],
        degraded=result.trace.meta.get("degraded"),
    )


def _explain(llm: LLM, index: int, place: int, expected: list[int], got: Output) -> FirstDifference:
    ours, theirs = (tokens[place] if place < len(tokens) else None for tokens in (expected, got.token_ids))
    gap = None
    if ours is not None and theirs is not None:
        logits = llm.score([*got.prompt_ids, *expected[:place]])[-1]
        gap = float(logits[ours] - logits[theirs])
    return FirstDifference(index, place, ours, theirs, gap)
