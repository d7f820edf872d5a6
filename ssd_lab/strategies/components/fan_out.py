"""Fan-out schedules as settings: how many recovery tokens to prepare at each accepted length (arXiv 2603.03251).

Each gives k + 1 numbers for rounds that began with a hit and k + 1 for rounds that began with the fallback, with equal
sums: the tree's shape stays, whatever happened. `ssd_lab.decoding.fan_out` has the theorem and the allocation.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssd_lab.decoding.fan_out import HitLaw, OutcomeLaw, allocate
from ssd_lab.errors import ConfigError
from ssd_lab.learning.confidence_fan_out import ConfidenceFanOut
from ssd_lab.learning.fan_out_fit import fit_outcome_law, measured_curves
from ssd_lab.learning.fan_out_learner import FanOutSchedule, OutcomeStatistics, ScheduleLearner
from ssd_lab.strategies.components.kinds import OpenKinds
from ssd_lab.trace import Trace
from ssd_lab.trace.outcomes import outcome_samples

Counts = list[Annotated[int, Field(ge=0)]]
WIDEST = 64  # candidates at one accepted length, beyond which a rank tells little

# near what the bundled pair gave at temperatures 0.7 and 1 (docs/strategies/fan-out.md); where nothing else is known
DEFAULT_LAW = OutcomeLaw(0.80, HitLaw(0.60, 0.60), HitLaw(0.60, 0.25))
PRIOR_ROUNDS = 30.0
FORGETTING = 0.999  # weight of the past for each observed round: about 1000 rounds are remembered


class Schedule(BaseModel, FanOutSchedule):
    """Base of the schedules; each gives k + 1 numbers after a hit and k + 1 after a fallback, with equal sums."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def after_hit(self, k: int) -> tuple[int, ...]:
        """Fan-out at accepted length 0..k in a round that began with a hit, before anything was learned."""

    def after_miss(self, k: int) -> tuple[int, ...]:
        """Fan-out at accepted length 0..k in a round that began with the fallback."""
        return self.after_hit(k)

    def laws(self) -> tuple[OutcomeLaw, OutcomeLaw]:
        """What is believed of outcomes before the first, after a hit and after the fallback."""
        return DEFAULT_LAW, DEFAULT_LAW

    def num_branches(self, k: int) -> int:
        """Branches that each sequence decodes in a round of k draft tokens."""
        return sum(self.after_hit(k))

    def learner(self, k: int) -> ScheduleLearner:
        """The schedule of one run: asked before each round, told after it. This one stays as it is."""
        return ScheduleLearner(self.after_hit(k), self.after_miss(k), self._statistics(k, forgetting=1.0))

    def confidence(self) -> ConfidenceFanOut | None:
        """What chooses each round's fan-out by the draft's own probabilities; None: `learner` decides."""
        return None

    def _statistics(self, k: int, *, forgetting: float, prior_rounds: float = PRIOR_ROUNDS) -> OutcomeStatistics:
        after_hit, after_miss = self.laws()
        widest = widest_fan_out(sum(self.after_hit(k)), k)
        return OutcomeStatistics(
            k, widest, after_hit=after_hit, after_miss=after_miss, prior_rounds=prior_rounds, forgetting=forgetting
        )


class Uniform(Schedule):
    """The same fan-out at every accepted length."""

    kind: Literal["uniform"] = "uniform"
    f: int = Field(3, ge=1, le=64, description="branches at each accepted length; each costs k draft tokens a round")

    def after_hit(self, k: int) -> tuple[int, ...]:
        """f, k + 1 times."""
        return (self.f,) * (k + 1)


class Explicit(Schedule):
    """Fan-out given as lists of k + 1 numbers."""

    kind: Literal["explicit"] = "explicit"
    hit: Counts = Field(description="k + 1 numbers, for rounds that began with a hit")
    miss: Counts | None = Field(
        None, description="k + 1 numbers with the same sum, for rounds that began with the fallback"
    )

    @model_validator(mode="after")
    def _equal_sums(self) -> Explicit:
        if sum(self.hit) == 0:
            raise ValueError("the fan-out lists are all zeros: prepare at least one branch")
        if self.miss is not None and sum(self.miss) != sum(self.hit):
            raise ValueError(
                f"hit sums to {sum(self.hit)} and miss to {sum(self.miss)}; both are decoded by the same number of "
                "branches, so make the sums equal"
            )
        return self

    @classmethod
    def from_trace(cls, trace: Trace, k: int, budget: int) -> Explicit:
        """The counts that would have hit most often in the trace's own rounds, whatever they began with.

        On those rounds no schedule over accepted lengths of that sum hits more often, uniform ones among them; on
        others it may, the more so the fewer rounds there were. Raises ConfigError if no round tells.
        """
        curves = measured_curves(outcome_samples(trace), k, widest_fan_out(budget, k))
        if curves is None:
            raise ConfigError(
                f"the trace tells no fan-out at k = {k}: it needs rounds of async_tree with {k} draft tokens and their "
                "recovery ranks"
            )
        return cls(hit=allocate(*curves, budget))

    def after_hit(self, k: int) -> tuple[int, ...]:
        """The `hit` list."""
        return tuple(self.hit)

    def after_miss(self, k: int) -> tuple[int, ...]:
        """The `miss` list, or the `hit` list if there is none."""
        return tuple(self.hit if self.miss is None else self.miss)


class Law(BaseModel):
    """Acceptance and power laws of one kind of round: miss rate = scale * F^-exponent for F candidates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    acceptance: float = Field(DEFAULT_LAW.acceptance, ge=0, le=1, description="probability of each draft token")
    exponent: float = Field(DEFAULT_LAW.rejected.exponent, gt=0, le=20, description="how fast misses fall with F")
    scale: float = Field(1.0, ge=0, le=1, description="miss rate of one candidate after a rejection; 1 in the paper")
    bonus_exponent: float | None = Field(
        None, gt=0, le=20, description="the same where all k tokens were accepted; None: as after a rejection"
    )
    bonus_scale: float | None = Field(None, ge=0, le=1, description="the same where all k tokens were accepted")

    def outcome_law(self) -> OutcomeLaw:
        """As plain maths."""
        bonus = None
        if self.bonus_exponent is not None or self.bonus_scale is not None:
            bonus = HitLaw(
                self.exponent if self.bonus_exponent is None else self.bonus_exponent,
                self.scale if self.bonus_scale is None else self.bonus_scale,
            )
        return OutcomeLaw(self.acceptance, HitLaw(self.exponent, self.scale), bonus)

    @classmethod
    def of(cls, law: OutcomeLaw) -> Law:
        """From plain maths, rounded to what can be told."""
        bonus = law.bonus
        return cls(
            acceptance=round(law.acceptance, 4),
            exponent=max(round(law.rejected.exponent, 4), 1e-3),
            scale=round(law.rejected.scale, 4),
            bonus_exponent=None if bonus is None else max(round(bonus.exponent, 4), 1e-3),
            bonus_scale=None if bonus is None else round(bonus.scale, 4),
        )


class Geometric(Schedule):
    """The best integers under one acceptance rate and a power law: the capped geometric series of Theorem 12.

    With acceptance and exponent alone it is the paper's law. `Geometric.from_trace` fits a law to each kind of round.
    Nothing given: a law near the bundled pair's.
    """

    kind: Literal["geometric"] = "geometric"
    budget: int = Field(ge=1, le=1024, description="branches in all; each costs k draft tokens a round")
    acceptance: float | None = Field(None, ge=0, le=1, description="probability that a draft token is accepted")
    exponent: float | None = Field(None, gt=0, le=20, description="r of the law: miss rate = F^-r")
    hit: Law | None = Field(None, description="a fuller law for rounds that began with a hit, instead of the two above")
    miss: Law | None = Field(None, description="a law of its own for rounds that began with the fallback")

    @model_validator(mode="after")
    def _one_law(self) -> Geometric:
        if self.hit is not None and (self.acceptance is not None or self.exponent is not None):
            raise ValueError("hit and acceptance or exponent both give the law of hit rounds: give one of them")
        return self

    @classmethod
    def from_trace(cls, trace: Trace, budget: int) -> Geometric:
        """The schedule for a trace whose rounds hold `recovery_rank`. Raises ConfigError if they tell too little."""
        samples = outcome_samples(trace)
        both = fit_outcome_law(samples)
        if both is None:
            raise ConfigError(
                "the trace tells no fan-out: it needs rounds of async_tree with their recovery ranks, more of them or "
                "less easy ones; record a longer run, or give acceptance and exponent"
            )
        hit, miss = (
            fit_outcome_law([s for s in samples if s.began_with_hit is kind], prior=both) or both
            for kind in (True, False)
        )
        return cls(budget=budget, hit=Law.of(hit), miss=Law.of(miss))

    def laws(self) -> tuple[OutcomeLaw, OutcomeLaw]:
        """The laws that it was solved for."""
        hit = self.hit.outcome_law() if self.hit is not None else self._plain_law()
        return hit, hit if self.miss is None else self.miss.outcome_law()

    def after_hit(self, k: int) -> tuple[int, ...]:
        """The best schedule under the law of hit rounds."""
        return solve(self.laws()[0], k, self.budget)

    def after_miss(self, k: int) -> tuple[int, ...]:
        """The best schedule under the law of miss rounds."""
        return solve(self.laws()[1], k, self.budget)

    def _plain_law(self) -> OutcomeLaw:
        if self.acceptance is None and self.exponent is None:
            return DEFAULT_LAW
        acceptance = DEFAULT_LAW.acceptance if self.acceptance is None else self.acceptance
        return OutcomeLaw(acceptance, HitLaw(self.exponent or DEFAULT_LAW.rejected.exponent))


class Adaptive(Schedule):
    """Learns while it runs how to spend the budget.

    by_confidence: apart for each round, on the outcomes that the draft's own probabilities of it make likeliest; how
    far those can be trusted is what is learned. Else by accepted lengths and ranks alone, apart for hit and miss
    rounds, allotted anew after every `every` rounds; that starts from `prior` (None: a law near the bundled pair's),
    which counts as much as `prior_rounds` rounds.
    """

    kind: Literal["adaptive"] = "adaptive"
    budget: int = Field(ge=1, le=1024, description="branches in all; each costs k draft tokens a round")
    by_confidence: bool = Field(True, description="spend it by the draft's probabilities of the round itself")
    prior: Law | None = Field(None, description="what is believed before the first round (not by confidence)")
    prior_rounds: float = Field(PRIOR_ROUNDS, gt=0, description="how many rounds that belief is worth")
    every: int = Field(16, ge=1, description="observed rounds between two allocations; one takes milliseconds")

    @model_validator(mode="after")
    def _prior_is_used(self) -> Adaptive:
        if self.prior is not None and self.by_confidence:
            raise ValueError("prior is a law of lengths and ranks, which by_confidence does not use: set that to false")
        return self

    def laws(self) -> tuple[OutcomeLaw, OutcomeLaw]:
        """The prior, for both kinds of round."""
        law = DEFAULT_LAW if self.prior is None else self.prior.outcome_law()
        return law, law

    def after_hit(self, k: int) -> tuple[int, ...]:
        """The best schedule under the prior."""
        return solve(self.laws()[0], k, self.budget)

    def learner(self, k: int) -> ScheduleLearner:
        """Learns from each observed round."""
        statistics = self._statistics(k, forgetting=FORGETTING, prior_rounds=self.prior_rounds)
        return ScheduleLearner(self.after_hit(k), self.after_miss(k), statistics, resolve_every=self.every)

    def confidence(self) -> ConfidenceFanOut | None:
        """Learns how far the draft's probabilities can be trusted."""
        return ConfidenceFanOut(self.budget) if self.by_confidence else None


SCHEDULES = OpenKinds("fan-out schedule", Schedule, ("uniform", "explicit", "geometric", "adaptive"))
FanOut = Annotated[Uniform | Explicit | Geometric | Adaptive, Field(discriminator="kind"), SCHEDULES]
register_schedule = SCHEDULES.register


def geometric(*, k: int, budget: int, acceptance: float, exponent: float) -> list[int]:
    """The k + 1 integers with sum `budget` that hit most often under w_a = acceptance^a (1 - acceptance), w_k =
    acceptance^k and miss rate F^-exponent (arXiv 2603.03251, Theorem 12; F = 0 allowed, always a miss there).

    Raises ConfigError for a value outside its range.
    """
    if k < 0 or budget < 0:
        raise ConfigError(f"k is {k} and budget {budget}; neither may be negative")
    try:
        law = OutcomeLaw(acceptance, HitLaw(exponent))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return allocate(law.weights(k), law.hit_rates(k, budget), budget)


@functools.lru_cache(maxsize=256)
def solve(law: OutcomeLaw, k: int, budget: int) -> tuple[int, ...]:
    """The best integers with sum `budget` under a law."""
    return tuple(allocate(law.weights(k), law.hit_rates(k, widest_fan_out(budget, k)), budget))


def widest_fan_out(budget: int, k: int) -> int:
    """Most candidates worth thinking of at one accepted length; at least what a uniform schedule would need."""
    return max(min(budget, WIDEST), -(-budget // (k + 1)))


def check_lengths(schedule: Schedule, k: int) -> None:
    """Raise ValueError unless the schedule has k + 1 numbers for both kinds of round."""
    for name, counts in (("hit", schedule.after_hit(k)), ("miss", schedule.after_miss(k))):
        if len(counts) != k + 1:
            raise ValueError(
                f"the fan-out list for {name} rounds has {len(counts)} numbers; k = {k} needs k + 1 = {k + 1}, one for "
                f"each accepted length 0..{k}"
            )
