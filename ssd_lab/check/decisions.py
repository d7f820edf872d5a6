"""Each random decision of a step, beside the law that it should follow given everything before it.

Written apart from the engine's acceptance code, in float64 numpy, for chains and trees alike: a chain is a tree with
one child a node. The law is recursive rejection sampling (Leviathan et al., arXiv 2211.17192, for one token; SpecInfer,
arXiv 2305.09781, and Sequoia, arXiv 2402.12374, for siblings without replacement). If every decision follows its law
the text follows the target; the other way round an error of any part shows in that part's own decisions, undiluted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssd_lab.check.statistics import Floats
from ssd_lab.check.steps import Offer, Step

DRAFTED, SIBLING, KEPT, SIBLING_KEPT, RECOVERY, BONUS, EMITTED = (
    "drafted token", "drafted sibling", "acceptance", "acceptance of a sibling", "recovery", "bonus or undrafted",
    "emitted token",
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A token that should have been drawn from `probs` `[vocab]`. contrast `[vocab]`: by how much each token would come
    too often if the draft were simply believed. before: the number that drew the step's first draft token, as far as
    the token tells it, which must not have anything to do with this draw (nan: nothing was drawn, or it is not told).
    ids `[vocab]`: which tokens `probs` tells of, where that is not the vocabulary; `token` is a place in it then.
    """

    event: str
    token: int
    probs: Floats
    contrast: Floats
    before: float = math.nan
    ids: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Tossed:
    """Yes or no, and with which probability it should have been yes. before: as there."""

    event: str
    chance: float
    kept: bool
    before: float


def decisions(step: Step, random: np.random.Generator) -> list[Drawn | Tossed]:
    """All of them; without an offer the emitted token alone. random: spreads what a token tells of the number that drew
    it.
    """
    if step.offer is None:
        return [Drawn(EMITTED, step.emitted, step.target, -step.target)]
    offer = step.offer
    if offer.chance is not None:
        return _told(offer, offer.chance, step)
    contrast = np.zeros_like(step.target) if offer.drafted is None else offer.drafted - step.target
    before = math.nan
    if offer.tokens and offer.drafted is not None:
        before = number_of(offer.tokens[0], offer.drafted, random)
    found, left = _trials(offer, step.target, contrast, before)
    if offer.kept < 0:
        found.append(Drawn(RECOVERY if offer.tokens else BONUS, step.emitted, left, contrast, before))
    return [*found, Drawn(EMITTED, step.emitted, step.target, contrast)]


def _told(offer: Offer, chance: float, step: Step) -> list[Drawn | Tossed]:
    """What a list of the likeliest tokens tells: how the first token was drawn, if it was kept, what was emitted."""
    tossed = Tossed(KEPT, chance, offer.kept == 0, math.nan)
    contrast = -step.target
    if offer.drafted is None or offer.listed is None:
        return [tossed, Drawn(EMITTED, step.emitted, step.target, contrast)]
    tokens, own = offer.listed[:-1], step.target[offer.listed[:-1]]
    contrast[tokens] += offer.drafted[:-1]
    listed = offer.drafted - np.append(own, 1 - own.sum())
    place = int(np.append(np.flatnonzero(tokens == offer.tokens[0]), len(tokens))[0])
    return [
        Drawn(DRAFTED, place, offer.drafted, listed, ids=offer.listed),
        tossed,
        Drawn(EMITTED, step.emitted, step.target, contrast),
    ]


def _trials(offer: Offer, target: Floats, contrast: Floats, before: float) -> tuple[list[Drawn | Tossed], Floats]:
    """How the offered tokens were drawn and tried one after the other, and what their refusals left of the target."""
    found: list[Drawn | Tossed] = []
    p, q = target, offer.drafted
    for place, token in enumerate(offer.tokens):
        if q is not None:
            found.append(Drawn(SIBLING if place else DRAFTED, token, q, contrast, before if place else math.nan))
        if offer.kept < 0 or offer.kept >= place:
            given = 1.0 if q is None else q[token]
            chance = min(1.0, p[token] / max(given, np.finfo(float).tiny))
            found.append(Tossed(SIBLING_KEPT if place else KEPT, chance, offer.kept == place, before))
            p = _residual(p, q, token)
        if q is not None:
            q = _without(q, token)
    return found, p


def number_of(token: int, probs: Floats, random: np.random.Generator) -> float:
    """A number in (0, 1) that would have drawn the token from `probs` `[vocab]`, by the order of token ids."""
    return float(probs[:token].sum() + random.random() * probs[token])


def _residual(p: Floats, q: Floats | None, token: int) -> Floats:
    """What a refused token leaves: max(p - q, 0), renormalised; of a certain guess p without it."""
    left = _without(p, token) if q is None else _normalised(np.maximum(p - q, 0.0))
    # p = q up to rounding leaves nothing; a rejection is then as likely as rounding itself
    return left if left.any() else p


def _without(probs: Floats, token: int) -> Floats:
    left = probs.copy()
    left[token] = 0.0
    return _normalised(left)


def _normalised(weights: Floats) -> Floats:
    return weights / max(weights.sum(), np.finfo(float).tiny)
