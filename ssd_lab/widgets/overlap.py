"""Why the text stays exact, to move by hand: p and q over a few tokens, what they share, and what each has too much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError
from ssd_lab.widgets.front_end import TabularWidget, traitlets

TOLERANCE = 1e-3  # of a sum of probabilities that were written by hand


class Overlap(TabularWidget):
    """p and q as outlines that overlap; their bars are moved by pointer or keys. Traits: `target` and `draft`, lists of
    probabilities over `words`; `factor`, Saguaro's C, where `fan_out` tokens are prepared (0: none, and no C).

    Raises ConfigError for lists of different lengths, or that are no distribution, and for settings out of range.
    """

    kind = traitlets.Unicode("overlap").tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    target = traitlets.List(traitlets.Float()).tag(sync=True)
    draft = traitlets.List(traitlets.Float()).tag(sync=True)
    fan_out = traitlets.Int(0).tag(sync=True)
    factor = traitlets.Float(1.0).tag(sync=True)

    def __init__(self, words: Sequence[str], target: Any, draft: Any, *, fan_out: int = 0, factor: float = 1.0) -> None:
        given = {"target": _listed("target", target, len(words)), "draft": _listed("draft", draft, len(words))}
        if not 0 <= fan_out < len(words):
            raise ConfigError(f"fan_out is {fan_out}; of {len(words)} tokens 0 to {len(words) - 1} can be prepared")
        if not 0 <= factor <= 1:
            raise ConfigError(f"factor is {factor}; C lies between 0 and 1")
        super().__init__(words=list(words), fan_out=fan_out, factor=factor, **given)

    @property
    def used(self) -> list[float]:
        """What the draft draws from: `draft` with the `fan_out` likeliest scaled by `factor`."""
        prepared = sorted(range(len(self.draft)), key=lambda i: -self.draft[i])[: self.fan_out]
        weights = [self.factor * prob if i in prepared else prob for i, prob in enumerate(self.draft)]
        return [weight / sum(weights) for weight in weights] if sum(weights) else list(self.draft)

    @property
    def acceptance(self) -> float:
        """The share of guesses that is kept."""
        return sum(map(min, self.target, self.used))

    @property
    def residual(self) -> list[float]:
        """What the target draws from after a rejection; zeros if there is none."""
        left = [max(0.0, p - q) for p, q in zip(self.target, self.used, strict=True)]
        return [value / sum(left) if sum(left) else 0.0 for value in left]

    def table(self) -> Table:
        """Token by token."""
        columns = zip(self.words, self.target, self.used, self.residual, strict=True)
        rows = [[word, f"{p:.3f}", f"{q:.3f}", f"{min(p, q):.3f}", f"{left:.3f}"] for word, p, q, left in columns]
        lead = f"Kept: {self.acceptance:.1%}"
        return Table(("token", "target p", "draft q", "both", "after a rejection"), rows, lead)

    def __repr__(self) -> str:
        return self.table().to_text()

    def _repr_html_(self) -> str:
        return self.table().to_html()


def _listed(name: str, given: Any, count: int) -> list[float]:
    """A list, also of a tensor. Raises ConfigError unless it is a distribution over `count` tokens."""
    values = [float(value) for value in given]
    if len(values) != count:
        raise ConfigError(f"{name} has {len(values)} probabilities, and there are {count} words: give one for each")
    if min(values) < 0 or abs(sum(values) - 1) > TOLERANCE:
        raise ConfigError(f"{name} is {values}, which sums to {sum(values):.3f}: give probabilities that sum to one")
    return values
