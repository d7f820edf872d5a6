"""Temperature 0: are the tokens those of autoregressive decoding, at every batch size?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ssd_lab.check.subjects import BASELINE, Models
from ssd_lab.common.progress import progress_bar
from ssd_lab.config import SamplingParams
from ssd_lab.llm import LLM
from ssd_lab.results import Output
from ssd_lab.strategies import StrategyConfig, registry


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
    """One strategy at one batch size against autoregressive decoding at batch 1."""

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


def compare_tokens(
    expected: Sequence[Sequence[int]], got: Sequence[Sequence[int]]
) -> tuple[int, list[tuple[int, int]]]:
    """How many tokens differ (a missing one differs), and (sequence, position) of each sequence's first difference."""
    differing = 0
    firsts = []
    for index, (ours, theirs) in enumerate(zip(expected, got, strict=True)):
        shared = min(len(ours), len(theirs))
        places = [i for i in range(shared) if ours[i] != theirs[i]]
        differing += len(places) + max(len(ours), len(theirs)) - shared
        if places:
            firsts.append((index, places[0]))
        elif len(ours) != len(theirs):
            firsts.append((index, shared))
    return differing, firsts


def check_greedy(
    models: Models,
    strategies: dict[str, StrategyConfig],
    prompts: Sequence[Any],
    *,
    max_tokens: int = 64,
    batches: Sequence[int] = (1, 4, 16),
    progress: bool = True,
    results: list[GreedyResult] | None = None,
) -> list[GreedyResult]:
    """Run every strategy at every batch size; `results` (if given) grows as they end, so an interruption keeps them."""
    found = [] if results is None else results
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    # the baseline itself at other batch sizes is a check too
    plan = [
        (label, config, batch)
        for label, config in {BASELINE: registry.config(BASELINE, {}), **strategies}.items()
        for batch in batches
        if not (label == BASELINE and batch == 1)
    ]
    with progress_bar(len(plan) + 1, "greedy", "run", enabled=progress) as bar:
        with models.llm(registry.config(BASELINE, {}), max_batch=1) as llm:
            expected, _ = _generate(llm, prompts, params)
        bar.update(1)
        for label, config, batch in plan:
            bar.set_postfix_str(f"{label}, batch {batch}")
            with models.llm(config, max_batch=batch) as llm:
                got, degraded = _generate(llm, prompts, params)
                found.append(_compare(llm, label, batch, expected, got, degraded))
            bar.update(1)
    return found


def _generate(llm: LLM, prompts: Sequence[Any], params: SamplingParams) -> tuple[list[Output], str | None]:
    result = llm.run(list(prompts), params)
    if any(output.finish_reason == "cancelled" for output in result.outputs):
        raise KeyboardInterrupt
    return result.outputs, result.trace.meta.get("degraded")


def _compare(
    llm: LLM, label: str, batch: int, expected: list[Output], got: list[Output], degraded: str | None
) -> GreedyResult:
    differing, firsts = compare_tokens([o.token_ids for o in expected], [o.token_ids for o in got])
    return GreedyResult(
        strategy=label,
        batch=batch,
        num_sequences=len(expected),
        num_tokens=sum(len(output.token_ids) for output in expected),
        num_differing_tokens=differing,
        num_differing_sequences=len(firsts),
        first_differences=[_explain(llm, index, place, expected[index], got[index]) for index, place in firsts],
        degraded=degraded,
    )


def _explain(llm: LLM, index: int, place: int, expected: Output, got: Output) -> FirstDifference:
    ours, theirs = expected.token_ids, got.token_ids
    if place >= min(len(ours), len(theirs)):
        return FirstDifference(
            index,
            place,
            ours[place] if place < len(ours) else None,
            theirs[place] if place < len(theirs) else None,
            None,
        )
    logits = llm.score([*expected.prompt_ids, *ours[:place]])[-1]
    gap = float(logits[ours[place]] - logits[theirs[place]])
    return FirstDifference(index, place, ours[place], theirs[place], gap)
