"""Phases alone, at a handful of sizes: enough to price every candidate, in a second or two."""

from __future__ import annotations

import time

from ssd_lab.models.loader import LoadedModel
from ssd_lab.profile.phase_times import PhaseTimer, Work
from ssd_lab.simulate import HardwareProfile, TableTime

VERIFIED = (0, 1, 3, 6, 8)  # draft tokens of a timed verification
TREE_DEPTH, TREE_FAN_OUTS = 4, (1, 3)
_WARM_CALLS = 3  # that timing spends before it counts
_MOST_REPEATS = 7


def coarse_profile(target: LoadedModel, draft: LoadedModel, work: Work, *, budget_s: float) -> HardwareProfile:
    """Times by rows for `work.batch` sequences of `work.context` tokens, as an engine that records would take them."""
    sizes = len(VERIFIED) + 2 * len(TREE_FAN_OUTS) + 2
    verify, extension, tree = {}, {}, {}
    with PhaseTimer(target, work) as timer:
        start_s = time.perf_counter()
        timer.verify_s(work, VERIFIED[-1], record=True, repeats=1)
        call_s = (time.perf_counter() - start_s) / (_WARM_CALLS + 1)
        repeats = max(1, min(_MOST_REPEATS, int(budget_s / sizes / call_s) - _WARM_CALLS))
        for k in VERIFIED:
            verify[work.batch * (k + 1)] = timer.verify_s(work, k, record=True, repeats=repeats)
    widest = max(TREE_FAN_OUTS) * (TREE_DEPTH + 1)
    with PhaseTimer(draft, work, scratch_positions=widest * TREE_DEPTH) as timer:
        chain_s = timer.chain_s(work, TREE_DEPTH, record=True, repeats=repeats) / TREE_DEPTH
        for k in (VERIFIED[1], VERIFIED[-1]):
            extension[work.batch * (k + 1)] = timer.verify_s(work, k, record=True, repeats=repeats)
        extended = _table(extension)
        for f in TREE_FAN_OUTS:
            fan_out = (f,) * (TREE_DEPTH + 1)
            tree_s = timer.tree_s(work, TREE_DEPTH, fan_out, record=True, repeats=repeats)
            grown_s = max(tree_s - extended.at(work.batch * (TREE_DEPTH + 1)), 0.0)
            tree[work.batch * sum(fan_out)] = grown_s / TREE_DEPTH
    return HardwareProfile(
        name="this machine",
        source=f"measured: {target.source} and {draft.source}, batch {work.batch}, context {work.context}",
        verify_s=_table(verify),
        draft_step_s=_table({work.batch: chain_s}),
        draft_tree_step_s=_table(tree),
        draft_extension_s=extended,
    )


def _table(seconds: dict[int, float]) -> TableTime:
    """Points by rows; noise must not make more rows faster."""
    ordered, slowest, rising = sorted(seconds), 0.0, []
    for rows in ordered:
        slowest = max(slowest, seconds[rows])
        rising.append(slowest)
    return TableTime(rows=tuple(ordered), seconds=tuple(rising))
