"""Say what you expect before it runs; what explains it stays folded until then, and comes back to what you said."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from ssd_lab.errors import ConfigError
from ssd_lab.notebooks.journal import JOURNAL
from ssd_lab.notebooks.predictions import PREDICTIONS


@dataclass(frozen=True)
class Said:
    """A line for the reader, and a text that may be folded under it."""

    line: str
    text: str = ""
    folded: bool = False

    def __repr__(self) -> str:
        return f"{self.line}\n{self.text}".rstrip()

    def _repr_html_(self) -> str:
        line, text = html.escape(self.line), html.escape(self.text)
        style = "border-left:4px solid #0072B2;padding:.3em .8em"
        if self.folded:
            return f'<details style="{style}"><summary>{line}</summary><p>{text}</p></details>'
        return f'<div style="{style}" role="status"><b>{line}</b>{text and f"<p>{text}</p>"}</div>'


def predict(name: str, guess: Any = ...) -> Said:
    """Note what you expect, as in `predict("04-1", 10)`. Without a guess: ask for one.

    Raises ConfigError for a prediction that no notebook asks for.
    """
    _known(name)
    if guess is ...:
        return Said(
            "Put your prediction in place of the dots: a number, or a few words. The answer stays folded until then."
        )
    JOURNAL.predicted(name, guess)
    return Said(f"You expect {_shown(guess)}. Go on and see.")


def reveal(name: str, measured: float | None = None) -> Said:
    """The answer, beside what was predicted; folded where nothing was. measured: what this run gave.

    Raises ConfigError for a prediction that no notebook asks for.
    """
    known = _known(name)
    seen = "" if measured is None else f" It was {_shown(measured)}."
    guess = JOURNAL.prediction(name)
    if guess is ...:
        return Said(
            "You have not predicted anything yet. Predict above first, or open this",
            f"{seen} {known}".strip(),
            folded=True,
        )
    return Said(f"You expected {_shown(guess)}.{seen}", known)


def _known(name: str) -> str:
    if name not in PREDICTIONS:
        raise ConfigError(f"no prediction {name!r}; there are {', '.join(PREDICTIONS)}")
    return PREDICTIONS[name]


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
