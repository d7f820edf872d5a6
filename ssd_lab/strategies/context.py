"""What a strategy in plain Python sees of a sequence, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceABC
from dataclasses import dataclass, field
from typing import Any

import torch

from ssd_lab.config import SamplingParams
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.sampling import sample
from ssd_lab.drafting.resources import Resources
from ssd_lab.models.text.tokenizer import Tokenizer
from ssd_lab.rounds.sequence import LastRound, Sequence
from ssd_lab.strategies.components.expected_text import ExpectedText

Law = Mapping[int, float]  # probabilities of some tokens, all others having none


@dataclass(frozen=True)
class Context:
    """One sequence as a simple strategy sees it.

    token_ids: prompt and text so far. num_prompt: how many of them are the prompt. memory: a dictionary of the
    strategy's own for this request, kept between rounds. seed: the request's. vocab_size, tokenizer (None: the target
    has none), device: the target's. last: how this request's last round ended, None before the first. expected_ids:
    what the caller thinks the output will be.
    """

    request_id: int
    token_ids: SequenceABC[int]
    num_prompt: int
    params: SamplingParams
    memory: dict[str, Any]
    seed: int = 0
    vocab_size: int = 0
    tokenizer: Tokenizer | None = None
    device: torch.device | None = None
    last: LastRound | None = None
    expected_ids: SequenceABC[int] = ()

    @classmethod
    def of(cls, sequence: Sequence, resources: Resources) -> Context:
        """That of a sequence in an engine."""
        return cls(
            sequence.request_id,
            tuple(sequence.token_ids),
            len(sequence.prompt_ids),
            sequence.params,
            sequence.memory,
            sequence.seed,
            resources.vocab_size,
            resources.target.tokenizer,
            resources.device,
            sequence.last_round,
            sequence.expected_ids,
        )

    def expected(self, count: int) -> Draft | None:
        """Up to `count` tokens of what the caller expects, where the output is in it; None where it is not."""
        if not self.expected_ids:
            return None
        text = self.memory.setdefault("expected", None) or ExpectedText(self.expected_ids)
        self.memory["expected"] = text
        tokens = text.next(self.token_ids[self.num_prompt :], count)
        return Draft(tokens, origin="expected") if tokens else None

    def draw(self, probs: torch.Tensor | Law, place: int) -> int:
        """Draw the draft token number `place` (0, 1, ...) of this round from `probs`: `[vocab]`, or `{token: p}`.

        The number that decides is a function of the request's seed and the token's position, so that a request's text
        is the same whatever else is in the batch. One draw for each place.
        """
        given = probs if isinstance(probs, torch.Tensor) else dense(probs, self.vocab_size)
        position = torch.tensor(len(self.token_ids) + place)
        return int(sample(given, uniform(torch.tensor(self.seed), position, Purpose.DRAFT).to(given.device)))


@dataclass(frozen=True)
class Draft:
    """Draft tokens for one sequence, and what each was drawn from: `[n, vocab]`, or `{token: p}` for each of them
    (None: certain guesses).

    The text stays exact only if each token was drawn from the row given with it. origin: what made them, for the trace.
    """

    tokens: SequenceABC[int] = field(default_factory=list)
    probs: torch.Tensor | SequenceABC[Law] | None = None
    origin: str = "custom"


def dense(law: Law, vocab_size: int) -> torch.Tensor:
    """`[vocab]`. Raises ValueError for tokens that are none."""
    wrong = [token for token in law if not isinstance(token, int) or not 0 <= token < vocab_size]
    if wrong:
        raise ValueError(f"probabilities of {wrong[:3]!r}; token ids are ints from 0 to {vocab_size - 1}")
    probs = torch.zeros(vocab_size)
    probs[list(law)] = torch.tensor(list(law.values()), dtype=torch.float32)
    return probs
