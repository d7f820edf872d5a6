"""Pieces of an answer, where their tokens came from, and what an answer took."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ssd_lab.config import SamplingParams
from ssd_lab.trace import SequenceRound, Trace

Message = dict[str, Any]

RECOVERY, BONUS, TARGET = "recovery", "bonus", "target"
ORIGINS = {  # of a token: what the legend says
    "hit": "draft token, prepared in the speculation cache",
    "draft": "draft token of the draft model",
    "tree": "draft token of a draft tree",
    "custom": "draft token of another guess",
    "jit": "draft token of the fallback after a miss (jit)",
    "fast": "draft token of the fallback after a miss (fast)",
    RECOVERY: "the target's own token after a draft token that it refused",
    BONUS: "the target's own token after all draft tokens were kept",
    TARGET: "the target's own token, nothing was drafted",
}


@dataclass(frozen=True)
class Piece:
    """Text that became certain. origin: one of ORIGINS; None where it is not known."""

    text: str
    origin: str | None = None


@dataclass(frozen=True)
class AnswerNumbers:
    """What an answer took; None where it is not known. acceptance: accepted over tested draft tokens (of a server:
    over all that were drafted). origins: tokens by where they came from.
    """

    strategy: str
    num_tokens: int
    finish_reason: str
    seconds: float
    first_token_s: float | None = None
    tokens_per_second: float | None = None
    tokens_per_round: float | None = None
    acceptance_rate: float | None = None
    cache_hit_rate: float | None = None
    origins: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class ChatModel(Protocol):
    """What answers: a model in this process, or a server."""

    @property
    def name(self) -> str:
        """Model and strategy, for a person."""

    def remarks(self) -> list[str]:
        """What a person should know before the first question, a line each."""

    def fit(self, messages: Sequence[Message], params: SamplingParams) -> int:
        """How many of the oldest turns must be left out so that the rest and the answer fit the context."""

    def stream(self, messages: Sequence[Message], params: SamplingParams) -> Generator[Piece]:
        """The answer; closing the iterator ends it. Raises SsdLabError."""

    def numbers(self) -> AnswerNumbers:
        """Of the answer that was streamed last, as far as it came."""

    def trace(self) -> Trace:
        """Its rounds. Raises ConfigError that says why there are none, and where to find them."""

    def choices(self) -> str:
        """What `switch` takes."""

    def switch(self, text: str) -> None:
        """Answer by another strategy from now on. Raises SsdLabError, and then all is as before."""

    def close(self) -> None:
        """Free everything; calling it twice is fine."""


def origins_of(record: SequenceRound) -> list[str]:
    """Where each token came from that a round added to the text."""
    kept = [record.origin] * min(record.num_accepted, record.num_emitted)
    if record.num_emitted <= record.num_accepted:
        return kept
    if not record.draft_tokens:
        return [*kept, TARGET]
    return [*kept, BONUS if record.num_accepted == len(record.draft_tokens) else RECOVERY]
