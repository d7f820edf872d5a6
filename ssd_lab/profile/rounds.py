"""Rounds of whole runs, engine and all, beside the phases that they are made of."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from ssd_lab import demo
from ssd_lab.config import SamplingParams
from ssd_lab.llm import LLM
from ssd_lab.models.loader import LoadedModel
from ssd_lab.profile.measure import Sizes
from ssd_lab.profile.phase_times import PhaseTimer, Work
from ssd_lab.profile.points import RoundPoint

FIRST_ROUNDS = 3  # in which graphs are captured


def measure_rounds(
    target: LoadedModel,
    draft: LoadedModel,
    sizes: Sizes,
    *,
    batches: Sequence[int] = (1,),
    max_tokens: int = 128,
    max_model_len: int = 1024,
) -> list[RoundPoint]:
    """Autoregressive, synchronous and asynchronous rounds on real prompts, and their phases alone at the mean context.

    The phases of an asynchronous round are the longer of verification and tree: what both take on one device together
    is the device's matter, and shows as overhead.
    """
    found = []
    f = sizes.fan_out[0]
    for batch in batches:
        runs: list[tuple[str, dict[str, Any]]] = [
            ("autoregressive", {}), ("sync_chain", {"k": sizes.k}), ("async_tree", {"k": sizes.k, "f": f}),
        ]  # fmt: skip
        for strategy, fields in runs:
            device = str(target.decoder.device)
            options: dict[str, Any] = {
                "device": device,
                "max_batch": batch,
                "max_model_len": max_model_len,
            }
            prompts = (demo.canned_prompts() * batch)[: max(2, batch)]
            with LLM(target, draft, strategy, progress=False, **options, **fields) as llm:
                llm.run(prompts, SamplingParams(max_tokens=24, ignore_eos=True))
                result = llm.run(prompts, SamplingParams(max_tokens=max_tokens, ignore_eos=True))
            full = [r for r in result.trace.rounds if len(r.sequences) == batch][FIRST_ROUNDS:]
            context = round(statistics.mean(s.position for r in full for s in r.sequences))
            round_s = statistics.median(r.end_s - r.start_s for r in full)
            phases_s = _phases_s(target, draft, strategy, Work(batch, context), sizes)
            metrics = result.metrics
            found.append(
                RoundPoint(
                    *(strategy, batch, context, round_s, phases_s),
                    metrics.tokens_per_second or 0.0,
                    metrics.tokens_per_round or 0.0,
                )
            )
    return found


def _phases_s(target: LoadedModel, draft: LoadedModel, strategy: str, work: Work, sizes: Sizes) -> float:
    k = 0 if strategy == "autoregressive" else sizes.k
    with PhaseTimer(target, work) as timer:
        verify_s = timer.verify_s(work, k, record=True, repeats=sizes.repeats)
    if k == 0:
        return verify_s
    with PhaseTimer(draft, work, scratch_positions=sum(sizes.fan_out) * k) as timer:
        if strategy == "sync_chain":
            return verify_s + timer.chain_s(work, k, record=True, repeats=sizes.repeats)
        return max(verify_s, timer.tree_s(work, k, sizes.fan_out, record=True, repeats=sizes.repeats))
