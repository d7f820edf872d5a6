"""One request while the engine works on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ssd_lab.config import SamplingParams
from ssd_lab.errors import SsdLabError
from ssd_lab.rounds.block_manager import ROOT
from ssd_lab.rounds.prompt_lines import PromptPart
from ssd_lab.rounds.stopping import FinishReason, StopChecker
from ssd_lab.rounds.verified import RoundProbabilities

ALL_TOKENS = 2**31 - 1  # no vocabulary is as large, and an integer of a tensor can be


@dataclass(frozen=True)
class LastRound:
    """How a request's last round ended. drafted: tokens that were verified, of a tree those along its path. accepted:
    how many of them stayed. target_probs: the target's probability of each drafted one (None: rounds are not recorded).
    """

    drafted: int
    accepted: int
    probs: tuple[RoundProbabilities, int] | None = field(default=None, repr=False)

    @property
    def target_probs(self) -> list[float] | None:
        """Told when it is asked for."""
        if self.probs is None:
            return None
        numbers, row = self.probs
        return [float(prob) for prob in numbers.target[row, : self.drafted]]


@dataclass
class Sequence:
    """A request's tokens, cache blocks and progress.

    Between rounds the KV cache holds at least the first `len(token_ids) - 1` tokens; `num_cached` counts them during
    prefill.
    """

    request_id: int
    prompt: str | None
    prompt_ids: list[int]
    params: SamplingParams
    seed: int
    stop: StopChecker
    arrival_s: float
    token_ids: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    num_cached: int = 0
    num_registered: int = 0
    prefix_key: int = ROOT
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    is_complete: bool = False  # its last token is there, though its text may not have been made yet
    finish_reason: FinishReason | None = None
    admitted_s: float | None = None  # when it left the queue for the first time
    first_token_s: float | None = None
    end_s: float | None = None
    last_accepted: int | None = None  # accepted length of the previous round, None before the first
    last_round: LastRound | None = None
    error: SsdLabError | None = None
    num_preemptions: int = 0
    expected_ids: tuple[int, ...] = ()  # what the caller thinks the output will be, for drafts
    memory: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.token_ids = list(self.prompt_ids)

    @property
    def output_ids(self) -> list[int]:
        """Tokens generated so far."""
        return self.token_ids[len(self.prompt_ids) :]

    @property
    def is_prefilled(self) -> bool:
        """All but the last token are in the KV cache, so a round can begin."""
        return self.num_cached >= len(self.token_ids) - 1

    @property
    def sampling_row(self) -> tuple[float, int, float, float, int]:
        """What decoding.sampling needs of this request."""
        params = self.params
        top_k = params.top_k if params.top_k < ALL_TOKENS else 0
        return (params.temperature, top_k, params.top_p, params.min_p, self.seed)


@dataclass(frozen=True)
class PrefillChunk:
    """Tokens `start` .. `stop - 1` of a sequence are computed now."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def part(self) -> PromptPart:
        """The tokens, and where they go."""
        sequence = self.sequence
        return PromptPart(sequence.token_ids[self.start : self.stop], self.start, list(sequence.blocks))
