"""Fan-out schedules: how many recovery tokens to prepare at each accepted length (arXiv 2603.03251)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Counts = list[Annotated[int, Field(ge=0)]]


class Schedule(BaseModel):
    """Base of the schedules; each gives k + 1 numbers after a hit and k + 1 after a fallback, with equal sums."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def after_hit(self, k: int) -> tuple[int, ...]:
        """Fan-out at accepted length 0..k in a round that began with a hit."""
        raise NotImplementedError(f"{type(self).__name__} must say its fan-out")

    def after_miss(self, k: int) -> tuple[int, ...]:
        """Fan-out at accepted length 0..k in a round that began with the fallback."""
        return self.after_hit(k)


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

    def after_hit(self, k: int) -> tuple[int, ...]:
        """The `hit` list."""
        return tuple(self.hit)

    def after_miss(self, k: int) -> tuple[int, ...]:
        """The `miss` list, or the `hit` list if there is none."""
        return tuple(self.hit if self.miss is None else self.miss)


FanOut = Annotated[Uniform | Explicit, Field(discriminator="kind")]


def check_lengths(schedule: Schedule, k: int) -> None:
    """Raise ValueError unless the schedule has k + 1 numbers for both kinds of round."""
    for name, counts in (("hit", schedule.after_hit(k)), ("miss", schedule.after_miss(k))):
        if len(counts) != k + 1:
            raise ValueError(
                f"the fan-out list for {name} rounds has {len(counts)} numbers; k = {k} needs k + 1 = {k + 1}, one for "
                f"each accepted length 0..{k}"
            )
