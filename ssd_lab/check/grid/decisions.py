"""Each random decision of a step, beside the law that it should follow given everything before it.

Written apart from the engine's acceptance code, in float64 numpy, for chains and trees alike: a chain is a tree with
one child a node. The law is recursive rejection sampling (Leviathan et al., arXiv 2211.17192, for one token; SpecInfer,
arXiv 2305.09781, and Sequoia, arXiv 2402.12374, for siblings without replacement). If every decision follows its law
the text follows the target; the other way round an error of any part shows in that part's own decisions, undiluted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssd_lab.check.grid.steps import Floats, Integers, Steps

DRAFTED, SIBLING, KEPT, SIBLING_KEPT, RECOVERY, BONUS, EMITTED = (
    "drafted token", "drafted sibling", "acceptance", "acceptance of a sibling", "recovery", "bonus or undrafted",
    "emitted token",
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """Tokens `[n]` that should have been drawn from `probs` `[n, vocab]`. rows: which steps. contrast `[n, vocab]`: by
    how much each token would come too often if the draft were simply believed. before `[n]`: the number that drew the
    step's first draft token, as far as the token tells it, which must not have anything to do with this draw (nan:
    nothing was drawn).
    """

    event: str
    rows: Integers
    tokens: Integers
    probs: Floats
    contrast: Floats
    before: Floats


@dataclass(frozen=True)
class Tossed:
    """Yes or no `[n]`, and with which probability `[n]` it should have been yes. rows, before: as there."""

    event: str
    rows: Integers
    probs: Floats
    kept: np.ndarray
    before: Floats


def decisions(steps: Steps, random: np.random.Generator) -> tuple[list[Drawn], list[Tossed]]:
    """All of them, by event. random: spreads what a token tells of the number that drew it."""
    drawn, tossed = [], []
    every = np.arange(len(steps))
    nothing = np.full(len(steps), np.nan)
    first = np.where(
        (steps.offered[:, 0] >= 0) & ~steps.certain, number_of(steps.offered[:, 0], steps.drafted, random), nothing
    )
    p, q = steps.target.copy(), steps.drafted.copy()
    contrast = steps.drafted - steps.target
    for place in range(steps.offered.shape[1]):
        rows = every[steps.offered[:, place] >= 0]
        token, certain = steps.offered[rows, place], steps.certain[rows]
        free = ~certain
        event, before = (SIBLING, first) if place else (DRAFTED, nothing)
        own = rows[free]
        drawn.append(Drawn(event, own, token[free], q[own], contrast[own], before[own]))
        given = np.where(certain, 1.0, q[rows, token])
        tried = (steps.kept[rows] < 0) | (steps.kept[rows] >= place)
        chance = np.minimum(1.0, p[rows, token] / np.maximum(given, np.finfo(float).tiny))
        kept = steps.kept[rows] == place
        event = SIBLING_KEPT if place else KEPT
        tossed.append(Tossed(event, rows[tried], chance[tried], kept[tried], first[rows[tried]]))
        lost = tried & ~kept
        p[rows[lost]] = _residual(p[rows[lost]], q[rows[lost]], token[lost], certain[lost])
        q[rows, token] = 0.0
        q[rows] = _normalised(q[rows])
    ended = steps.kept < 0
    for event, chosen in ((RECOVERY, steps.offered[:, 0] >= 0), (BONUS, steps.offered[:, 0] < 0)):
        rows = every[ended & chosen]
        drawn.append(Drawn(event, rows, steps.emitted[rows], p[rows], contrast[rows], first[rows]))
    drawn.append(Drawn(EMITTED, every, steps.emitted, steps.target, contrast, nothing))
    return drawn, tossed


def number_of(tokens: Integers, probs: Floats, random: np.random.Generator) -> Floats:
    """A number in (0, 1) that would have drawn each token from `probs` `[n, vocab]`, by the order of token ids."""
    rows = np.arange(len(tokens))
    own = probs[rows, tokens]
    return np.cumsum(probs, -1)[rows, tokens] - own + random.random(len(tokens)) * own


def _residual(p: Floats, q: Floats, token: Integers, certain: np.ndarray) -> Floats:
    """max(p - q, 0), renormalised; of a certain guess q is a one on it."""
    left = np.where(certain[:, None], p, np.maximum(p - q, 0.0))
    sure = np.flatnonzero(certain)
    left[sure, token[sure]] = 0.0
    # p = q up to rounding leaves nothing; a rejection is then as likely as rounding itself
    return np.where(left.sum(-1, keepdims=True) > 0, _normalised(left), p)


def _normalised(weights: Floats) -> Floats:
    return weights / np.maximum(weights.sum(-1, keepdims=True), np.finfo(float).tiny)
