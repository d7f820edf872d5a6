"""Fallbacks: what answers a miss in asynchronous speculation (arXiv 2603.03251).

None changes the acceptance rule: whatever is guessed is verified against the distribution it was drawn from.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ssd_lab.learning.fallback_choice import FallbackChooser, FallbackSetting, FastSource, FixedChoice
from ssd_lab.strategies.components.kinds import OpenKinds


class FallbackConfig(BaseModel, FallbackSetting):
    """Base of the fallbacks: `chooser` says which of jit and fast answers each round's misses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __str__(self) -> str:
        """The kind, and what was set besides."""
        changed = self.model_dump(exclude_defaults=True, exclude={"kind"})
        kind = str(self.model_dump()["kind"])
        return kind if not changed else f"{kind} {' '.join(f'{name}={value}' for name, value in changed.items())}"


class Jit(FallbackConfig):
    """The draft drafts now, for the missed rows, while the target waits: slow and accurate."""

    kind: Literal["jit"] = "jit"

    def chooser(self) -> FixedChoice:
        """Always jit."""
        return FixedChoice("jit")


class Fast(FallbackConfig):
    """Something at hand, as certain guesses: nearly free and seldom right."""

    kind: Literal["fast"] = "fast"
    source: FastSource = Field(
        "stale",
        description="stale: the draft's likeliest branch for another recovery token at the same accepted length; "
        "ngram: what followed the text's last tokens before; random: any tokens",
    )

    @property
    def guesses(self) -> FastSource:
        """As the field says."""
        return self.source

    def chooser(self) -> FixedChoice:
        """Always fast."""
        return FixedChoice("fast")


class Auto(FallbackConfig):
    """jit or fast, whichever gives more tokens per second, from measured rounds (Corollary 16 of arXiv 2603.03251)."""

    learns: ClassVar[bool] = True

    kind: Literal["auto"] = "auto"
    source: FastSource = Field("stale", description="what fast guesses, as there")
    explore: int = Field(24, ge=1, description="missed rows that each answers before one is chosen")
    revisit: int = Field(64, ge=2, description="the other one is tried again once in so many rounds with misses")

    @property
    def guesses(self) -> FastSource:
        """As the field says."""
        return self.source

    def chooser(self) -> FallbackChooser:
        """One that learns."""
        return FallbackChooser(explore=self.explore, revisit=self.revisit)


def _from_name(value: Any) -> Any:
    """`"jit"` stands for `{"kind": "jit"}`."""
    return {"kind": value} if isinstance(value, str) else value


FALLBACKS = OpenKinds("fallback", FallbackConfig, ("jit", "fast", "auto"))
Fallback = Annotated[Jit | Fast | Auto, Field(discriminator="kind"), FALLBACKS, BeforeValidator(_from_name)]
register_fallback = FALLBACKS.register
