"""Rounds of whole runs, engine and all, beside the phases that they are made of."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from ssd_lab import demo
from ssd_lab.config import SamplingParams
from ssd_lab.execution.observing import NOBODY
from ssd_lab.llm import LLM
from ssd_lab.models.loader import LoadedModel
from ssd_lab.profile.host_time import Replays, idle_s
from ssd_lab.profile.measure import Sizes
from ssd_lab.profile.phase_times import PhaseTimer, Work
from ssd_lab.profile.points import RoundPoint
from ssd_lab.results import RunResult

FIRST_ROUNDS = 3  # in which caches are cold
FEWEST_ROUNDS = 16


def measure_rounds(
    target: LoadedModel,
    draft: LoadedModel,
    sizes: Sizes,
    *,
    batches: Sequence[int] = (1,),
    max_model_len: int = 1024,
) -> list[RoundPoint]:
    """Rounds of each kind of strategy on real prompts, and the phases alone of the usual ones at the mean context.

    The phases of an asynchronous round are the longer of verification and tree: what both take on one device together
    is the device's matter, and shows as overhead.
    """
    found = []
    device = target.decoder.device
    f = sizes.fan_out[0]
    max_tokens = max(128, FEWEST_ROUNDS * (sizes.k + 1))  # rounds enough even if everything is accepted
    runs: list[tuple[str, dict[str, Any]]] = [
        ("autoregressive", {}), ("sync_chain", {"k": sizes.k}), ("async_tree", {"k": sizes.k, "f": f}),
        ("sync_tree", {}), ("prompt_lookup", {}), ("suffix_tree", {}), ("cascade", {}),
    ]  # fmt: skip
    if target.source == str(demo.TARGET):
        runs += [("eagle3", {}), ("eagle3", {"mode": "async"})]
    for batch in batches:
        for strategy, fields in runs:
            options: dict[str, Any] = {"device": str(device), "max_batch": batch, "max_model_len": max_model_len}
            prompts = (demo.canned_prompts() * batch)[: max(2, batch)]
            replays = Replays() if device.type == "cuda" else None
            with LLM(target, draft, strategy, progress=False, observer=replays or NOBODY, **options, **fields) as llm:
                params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
                llm.run(prompts, params.model_copy(update={"max_tokens": 24}))
                result = llm.run(prompts, params)
                host_s = None if replays is None else _host_s(llm, prompts[:batch], params, replays)
            name = " ".join([strategy, *(f"{key}={value}" for key, value in fields.items() if key == "mode")])
            point = _point(name, batch, result, host_s)
            if strategy in ("autoregressive", "sync_chain", "async_tree"):
                alone_s = _phases_s(target, draft, strategy, Work(batch, point.context), sizes)
                point = dataclasses.replace(point, phases_s=alone_s)
            found.append(point)
    return found


def _host_s(llm: LLM, prompts: Sequence[Any], params: SamplingParams, replays: Replays) -> float:
    """Of one batch from its first round to its last, so that no prompt is computed in between."""
    replays.events.clear()
    llm.run(list(prompts), params)
    return idle_s(replays.spans(), skipped=FIRST_ROUNDS)


def _point(name: str, batch: int, result: RunResult, host_s: float | None) -> RoundPoint:
    full = [r for r in result.trace.timed_rounds if len(r.sequences) == batch][FIRST_ROUNDS:]
    metrics = result.metrics
    return RoundPoint(
        strategy=name,
        batch=batch,
        context=round(statistics.mean(s.position for r in full for s in r.sequences)),
        round_s=statistics.median(r.end_s - r.start_s for r in full),
        phases_s=None,
        tokens_per_second=metrics.tokens_per_second or 0.0,
        tokens_per_round=metrics.tokens_per_round or 0.0,
        host_s=host_s,
    )


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
