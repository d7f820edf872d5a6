"""What scoring hands back: one verdict a prompt, and their share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Metric = Literal["exact_match", "pass@1", "none"]


class PromptScore(BaseModel):
    """One prompt's verdict.

    passed: None where it could not be scored (`detail` says why). method: how it was judged (GSM8K: `####`, `boxed`,
    `last number`, `none`; HumanEval: the problem's `tests`, or the `examples` of its docstring).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    passed: bool | None
    method: str = ""
    found: str = ""
    expected: str = ""
    detail: str = ""


class QualityResult(BaseModel):
    """The scores of one data set. sandbox: what kept its programs in (`bwrap`, `docker`, `podman`); empty if
    none was run or nothing did."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    metric: Metric
    scores: tuple[PromptScore, ...] = ()
    sandbox: tuple[str, ...] = ()
    note: str = ""

    @property
    def num_scored(self) -> int:
        """Prompts with a verdict."""
        return sum(score.passed is not None for score in self.scores)

    @property
    def num_passed(self) -> int:
        """Prompts answered rightly."""
        return sum(score.passed is True for score in self.scores)

    @property
    def accuracy(self) -> float | None:
        """Right ones of those scored; None where none was."""
        return self.num_passed / self.num_scored if self.num_scored else None

    @property
    def methods(self) -> dict[str, int]:
        """How many were judged in which way."""
        counts: dict[str, int] = {}
        for score in self.scores:
            if score.passed is not None:
                counts[score.method] = counts.get(score.method, 0) + 1
        return counts

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; the derived numbers included."""
        derived = {
            "accuracy": self.accuracy,
            "num_scored": self.num_scored,
            "num_passed": self.num_passed,
            "methods": self.methods,
        }
        return {**self.model_dump(mode="json"), **derived}
