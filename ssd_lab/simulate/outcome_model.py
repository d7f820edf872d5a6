"""Models of outcomes from which rounds can be drawn: acceptance by place, and how likely the recovery token was."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ssd_lab.decoding.fan_out import HitLaw
from ssd_lab.errors import ConfigError
from ssd_lab.learning.fan_out_fit import OutcomeSample, fit_hit_law
from ssd_lab.trace import SequenceRound, Trace
from ssd_lab.trace.outcomes import outcome_sample

FARTHEST_RANK = 1 << 20
_LEAST_TESTED = 20  # times that a place must have been reached for its own acceptance to be told


@dataclass(frozen=True)
class RoundModel:
    """Rounds whose draft tokens came about in one way.

    acceptance[i]: P(draft token i is accepted | all before it were); the last entry holds for all later places.
    rejected, bonus: laws of the recovery token's rank, after a rejection and after all k tokens were accepted.
    """

    acceptance: tuple[float, ...]
    rejected: HitLaw
    bonus: HitLaw

    def __post_init__(self) -> None:
        if not self.acceptance or not all(0 <= value <= 1 for value in self.acceptance):
            raise ConfigError(f"acceptance is {self.acceptance}; give at least one probability, each within 0..1")

    def acceptance_at(self, place: int) -> float:
        """P(draft token at this place is accepted | all before it were)."""
        return self.acceptance[min(place, len(self.acceptance) - 1)]

    def draw(self, generator: random.Random, k: int) -> tuple[int, int]:
        """Accepted length 0..k and the recovery token's rank."""
        accepted = 0
        while accepted < k and generator.random() < self.acceptance_at(accepted):
            accepted += 1
        return accepted, draw_rank(generator, self.bonus if accepted == k else self.rejected)

    def expected_tokens(self, k: int) -> float:
        """Tokens of a round of k draft tokens."""
        tokens, reached = 1.0, 1.0
        for place in range(k):
            reached *= self.acceptance_at(place)
            tokens += reached
        return tokens

    def weights(self, k: int) -> list[float]:
        """P(accepted length = a), a in 0..k."""
        weights, reached = [], 1.0
        for place in range(k):
            weights.append(reached * (1 - self.acceptance_at(place)))
            reached *= self.acceptance_at(place)
        return [*weights, reached]

    def hit_rate(self, fan_out: Sequence[int]) -> float:
        """P(hit) after such a round, prepared for with k + 1 fan-outs."""
        laws = [self.rejected] * (len(fan_out) - 1) + [self.bonus]
        weights = self.weights(len(fan_out) - 1)
        return sum(w * law.hit_rate(f) for w, law, f in zip(weights, laws, fan_out, strict=True))


@dataclass(frozen=True)
class OutcomeModel:
    """How rounds end, by what they began with: a hit, the draft's own chain (`jit`), a fast fallback, an n-gram.

    lookup_rate: how often an n-gram is found. source: where the numbers come from.
    """

    hit: RoundModel
    jit: RoundModel
    fast: RoundModel
    lookup: RoundModel | None = None
    lookup_rate: float = 0.5
    source: str = "given"

    @classmethod
    def of(
        cls, acceptance: float, law: HitLaw, *, fast_acceptance: float = 0.1, bonus: HitLaw | None = None
    ) -> OutcomeModel:
        """One acceptance rate and one law of ranks for everything but the fast fallback's tokens."""
        own = RoundModel((acceptance,), law, law if bonus is None else bonus)
        return cls(own, own, replace(own, acceptance=(fast_acceptance,)))

    @classmethod
    def from_trace(cls, trace: Trace, *, widest: int = 64) -> OutcomeModel:
        """Fit a run with recorded recovery ranks; a kind of round that did not happen takes those of a related one
        (rounds after a fast fallback those of one that guesses nothing). Raises ConfigError without ranks.
        """
        groups: dict[str, list[OutcomeSample]] = {"hit": [], "jit": [], "fast": [], "lookup": []}
        for record in (s for one in trace.rounds for s in one.sequences if s.draft_tokens):
            groups[_kind(record)].append(outcome_sample(record))
        everything = [sample for group in groups.values() for sample in group]
        whole = _fit(everything, None, widest)
        if whole is None:
            raise ConfigError(
                "the trace has no recovery ranks to fit (or too few): record async_tree rounds, some hundred at least"
            )
        own_draft = _fit(groups["hit"] + groups["jit"], whole, widest) or whole
        fast = _fit(groups["fast"], own_draft, widest)
        return cls(
            hit=_fit(groups["hit"], own_draft, widest) or own_draft,
            jit=_fit(groups["jit"], own_draft, widest) or own_draft,
            fast=replace(own_draft, acceptance=(0.0,)) if fast is None else fast,
            lookup=_fit(groups["lookup"], own_draft, widest),
            source=f"fitted to {len(everything)} recorded rounds",
        )

    def began_with(self, kind: str) -> RoundModel:
        """The rounds that began so: `hit`, `jit`, `fast` or `lookup`."""
        if kind == "lookup":
            return self.fast if self.lookup is None else self.lookup
        return {"hit": self.hit, "jit": self.jit, "fast": self.fast}[kind]

    def with_factors(self, acceptance: float, miss: float, bonus_miss: float = 1.0) -> OutcomeModel:
        """With acceptance, and the miss rates after a rejection and after k kept tokens, multiplied by these."""

        def changed(model: RoundModel) -> RoundModel:
            laws = (
                HitLaw(law.exponent, min(1.0, law.scale * factor))
                for law, factor in ((model.rejected, miss), (model.bonus, bonus_miss))
            )
            return RoundModel(tuple(min(1.0, value * acceptance) for value in model.acceptance), *laws)

        return replace(self, hit=changed(self.hit), jit=changed(self.jit))


def draw_rank(generator: random.Random, law: HitLaw) -> int:
    """A rank with P(rank >= F) = scale * F^-exponent."""
    u = 1.0 - generator.random()  # (0, 1]
    if u >= law.scale:
        return 0
    logarithm = math.log(law.scale / u) / law.exponent  # of the smallest F whose miss rate is at most u
    if logarithm > math.log(FARTHEST_RANK):
        return FARTHEST_RANK
    return math.ceil(math.exp(logarithm)) - 1


def _kind(record: SequenceRound) -> str:
    if record.cache_hit is True:
        return "hit"
    return {"fast": "fast", "custom": "lookup", "expected": "lookup"}.get(record.origin, "jit")


def _fit(samples: Sequence[OutcomeSample], other: RoundModel | None, widest: int) -> RoundModel | None:
    """A model of these rounds; a law that they do not tell is taken from `other`, or from the other of the two laws."""
    acceptance = acceptance_by_place(samples)
    if not acceptance:
        return None
    fits = [
        fit_hit_law([s.rank for s in samples if s.rank is not None and s.all_accepted is full], widest=widest)
        for full in (False, True)
    ]
    rejected, bonus = (None if fit is None else fit.law for fit in fits)
    if other is not None:
        rejected, bonus = rejected or other.rejected, bonus or other.bonus
    rejected, bonus = rejected or bonus, bonus or rejected
    return None if rejected is None or bonus is None else RoundModel(acceptance, rejected, bonus)


def acceptance_by_place(samples: Sequence[OutcomeSample]) -> tuple[float, ...]:
    """P(draft token i is accepted | all before it were), for the first places, as far as rounds reached them."""
    rates = []
    for place in range(max((s.num_drafted for s in samples), default=0)):
        reached = [s for s in samples if s.num_accepted >= place and s.num_drafted > place]
        if len(reached) < _LEAST_TESTED:
            break
        rates.append(sum(s.num_accepted > place for s in reached) / len(reached))
    return tuple(rates)
