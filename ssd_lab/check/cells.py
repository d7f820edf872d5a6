"""One cell of a check: a strategy at one temperature and batch size on some models, run and tested.

Which path drafts a round (hit, jit, fast, ...) is decided by earlier outcomes, before any of the round's random numbers
is looked at. So, given the text before it, every token that a round emits must follow the target's distribution,
whatever its path; and, where the trace tells what the draft offered and from which distributions, every decision on the
way to that token must follow its own law.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from ssd_lab.check.evidence import Tally, TestsOfPath, text_tests
from ssd_lab.check.greedy import GreedyResult, compare_greedy
from ssd_lab.check.path_tests import PathTests
from ssd_lab.check.reference import Filters, probabilities
from ssd_lab.check.steps import steps_of
from ssd_lab.check.subjects import BASELINE, Subject
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError, DraftWorkerError
from ssd_lab.llm import LLM
from ssd_lab.strategies import StrategyConfig, registry
from ssd_lab.trace.records import SequenceRound

OnWave = Callable[[int], None]  # hears, wave by wave, how many tokens were drawn so far
REQUESTS_A_ROW = 4  # of a wave: the batch stays full but for its end


@dataclass(frozen=True)
class Cell:
    """models: by name. temperature 0 compares tokens, any other tests distributions. draws: tokens to wait for then."""

    models: str
    subject: Subject
    temperature: float
    batch: int
    draws: int = 0

    @property
    def key(self) -> str:
        """Tells it from all others."""
        return f"{self.models} | {self.subject.label} | T={self.temperature:g} | batch {self.batch}"


@dataclass(frozen=True)
class CellResult:
    """What came of a cell. refused: why the engine did not take the configuration. failed: the error that ended it."""

    key: str
    seconds: float
    tokens: int = 0
    greedy: GreedyResult | None = None
    paths: list[PathTests] = field(default_factory=list)
    refused: str | None = None
    failed: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CellResult:
        """The other way round."""
        greedy = None if data["greedy"] is None else GreedyResult.from_dict(data["greedy"])
        return cls(**{**data, "greedy": greedy, "paths": [PathTests(**tests) for tests in data["paths"]]})


class Engines(Protocol):
    """What makes an engine for each strategy, as `Models` does."""

    def llm(self, strategy: StrategyConfig, *, max_batch: int, record_details: int = 0) -> LLM:
        """Close it."""


class RefusedError(ConfigError):
    """The engine does not take a cell's configuration."""


@dataclass(frozen=True)
class Setting:
    """Models and what they are asked; by default as `check` does.

    prompts, max_tokens: at temperature 0. contexts, sampled_tokens: above it. filters: as requests take them in turn;
    the temperature is the cell's. apart: test requests that filter by themselves. common: a cell's draws are waited for
    on every path with at least this share of all tokens, or on all paths together where none has that share. details:
    how many of the likeliest tokens the trace keeps at each place, so that it tells what draft tokens were drawn from.
    test: what becomes of the decisions on a path.
    """

    models: Engines
    prompts: Sequence[Any]
    max_tokens: int
    contexts: Sequence[Any]
    seed: int
    sampled_tokens: int = 24
    filters: tuple[Filters, ...] = (
        Filters(),
        Filters(top_p=0.9),
        Filters(top_k=50),
        Filters(top_k=100, top_p=0.95, min_p=0.02),
    )
    apart: bool = False
    common: float = 0.05
    details: int = 32
    test: TestsOfPath = text_tests

    def run(self, cell: Cell, on_wave: OnWave = lambda drawn: None) -> CellResult:
        """Run the cell and test it. Raises RefusedError, and whatever ended the run: KeyboardInterrupt for Ctrl-C,
        DraftWorkerError where draws went on without their draft.
        """
        start = time.perf_counter()
        expected = [] if cell.temperature else self._expected  # its engine gives up its memory before the next begins
        try:
            details = self.details if cell.temperature else 0
            llm = self.models.llm(cell.subject.config, max_batch=cell.batch, record_details=details)
        except ConfigError as error:
            raise RefusedError(str(error)) from error
        with llm:
            if cell.temperature:
                tally = self._sample(llm, cell, on_wave)
                tokens, greedy, paths = tally.num_tokens, None, tally.tests(self.test)
            else:
                greedy = compare_greedy(llm, cell.subject.label, self.prompts, self._greedy, expected)
                tokens, paths = greedy.num_tokens, []
        return CellResult(cell.key, time.perf_counter() - start, tokens, greedy, paths)

    @cached_property
    def _expected(self) -> list[list[int]]:
        """By autoregressive decoding at batch 1."""
        with self.models.llm(registry.config(BASELINE, {}), max_batch=1) as llm:
            return [output.token_ids for output in llm.run(list(self.prompts), self._greedy).whole().outputs]

    @property
    def _greedy(self) -> SamplingParams:
        return SamplingParams(max_tokens=self.max_tokens, ignore_eos=True)

    def _sample(self, llm: LLM, cell: Cell, on_wave: OnWave) -> Tally:
        """Run requests with new seeds until there are enough tokens."""
        tally = Tally(llm.target.config.vocab_size, self.seed, cell.key)
        number = 0
        while not self._is_enough(tally, cell):
            wave = range(number, number + REQUESTS_A_ROW * cell.batch)
            number = wave.stop
            self._wave(llm, cell, wave, tally)
            on_wave(tally.num_tokens)
        return tally

    def _is_enough(self, tally: Tally, cell: Cell) -> bool:
        total = tally.num_tokens
        common = [count for count in tally.tokens_by_path.values() if count >= self.common * total]
        return min(common, default=total) >= cell.draws

    def _wave(self, llm: LLM, cell: Cell, wave: range, tally: Tally) -> None:
        # a step over contexts of any number: every context meets every filter
        turns = [(i + i // len(self.contexts)) % len(self.filters) for i in wave]
        filters = [replace(self.filters[turn], temperature=cell.temperature) for turn in turns]
        params = [
            SamplingParams(
                **asdict(own),
                max_tokens=self.sampled_tokens,
                ignore_eos=True,
                seed=_request_seed(f"{self.seed} {cell.key} {i}"),
            )
            for i, own in zip(wave, filters, strict=True)
        ]
        result = llm.run([self.contexts[i % len(self.contexts)] for i in wave], params).whole()
        if "degraded" in result.trace.meta:
            raise DraftWorkerError(f"the run went on without its draft: {result.trace.meta['degraded']}")
        rounds: dict[int, list[SequenceRound]] = defaultdict(list)
        for round_record in result.trace.rounds:
            for row in round_record.sequences:
                rounds[row.request_id].append(row)
        for output, own in zip(result.outputs, filters, strict=True):
            recorded = sum(row.num_emitted for row in rounds[output.request_id])
            if recorded != len(output.token_ids):
                raise ConfigError(
                    f"the trace has {recorded} emitted tokens for request {output.request_id} and its text has "
                    f"{len(output.token_ids)}: the rounds were not recorded"
                )
            logits = llm.score([*output.prompt_ids, *output.token_ids[:-1]])[len(output.prompt_ids) - 1 :]
            filtered = self.apart and own.cut
            target = probabilities(logits, own)
            own_rounds = rounds[output.request_id]
            steps = steps_of(own_rounds, output.token_ids, target, filtered=filtered, details=self.details)
            tally.add(steps)


def _request_seed(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)
