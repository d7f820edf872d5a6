"""Lookahead: how many draft tokens a round has, always the same or chosen from confidence and measured times."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ssd_lab.decoding.lookahead import LookaheadChooser


class FixedLookahead(BaseModel):
    """k draft tokens in every round."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["fixed"] = "fixed"


class DynamicLookahead(BaseModel):
    """At most k draft tokens, as many as give the most tokens per second.

    The start is floor(verification time / draft step time) where both happen at the same time; then confidence and
    measured times decide.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["dynamic"] = "dynamic"

    def chooser(self, k: int, *, verify_s: float, step_s: float, overlapped: bool) -> LookaheadChooser:
        """What decides in one run; k is the most. Times of one verification and one draft step, as measured so far."""
        return LookaheadChooser(k, verify_s=verify_s, step_s=step_s, overlapped=overlapped)


def _from_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Lookahead = Annotated[FixedLookahead | DynamicLookahead, Field(discriminator="kind"), BeforeValidator(_from_name)]
