"""One cell of the grid: a configuration at one temperature and batch size, run and tested."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssd_lab.api import LLM
from ssd_lab.check.greedy import compare_tokens
from ssd_lab.check.grid.configurations import Configuration
from ssd_lab.check.grid.evidence import Evidence, PathTests
from ssd_lab.check.grid.steps import Floats, steps_of
from ssd_lab.check.grid.watching import WatchedStrategy
from ssd_lab.check.reference import Filters, probabilities
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError, DraftWorkerError, SsdLabError
from ssd_lab.models.loader import LoadedModel
from ssd_lab.results import RunResult
from ssd_lab.strategies import registry

TOKENS_A_REQUEST = 40
Tokens = Sequence[Sequence[int]]
REQUESTS_A_ROW = 4  # of a wave: the batch stays full but for its end


@dataclass(frozen=True)
class Models:
    """What a cell runs on. fields: given to every strategy that has them (`head`)."""

    name: str
    target: LoadedModel
    draft: LoadedModel
    head: str | None
    engine: dict[str, Any]

    def llm(self, configuration: Configuration, batch: int, *, watched: bool = False) -> LLM:
        """An engine for this configuration. Close it."""
        strategy = registry.config(
            configuration.strategy, self._with_head(configuration.strategy, configuration.fields)
        )
        return LLM(
            self.target,
            self.draft,
            WatchedStrategy(inner=strategy) if watched else strategy,
            progress=False,
            max_batch=batch,
            **self.engine,
        )

    def _with_head(self, strategy: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields with the folder of the head, in strategies within them too."""
        own = {
            name: {"strategy": inner, **self._with_head(inner, rest)}
            if isinstance(value, dict) and (inner := (rest := dict(value)).pop("strategy", None))
            else value
            for name, value in fields.items()
        }
        draft_field = registry.all()[strategy].draft_field
        return own if draft_field is None or self.head is None else {**own, draft_field: self.head}


@dataclass(frozen=True)
class Cell:
    """models: by name. temperature 0 compares tokens, any other tests decisions."""

    models: str
    configuration: Configuration
    temperature: float
    batch: int

    @property
    def key(self) -> str:
        """Tells it from all others."""
        return f"{self.models} | {self.configuration.label} | T={self.temperature:g} | batch {self.batch}"


@dataclass(frozen=True)
class CellResult:
    """What came of a cell. refused: why the engine did not take the configuration. failed: the error that ended it."""

    key: str
    seconds: float
    tokens: int = 0
    differing: int | None = None
    paths: list[PathTests] = field(default_factory=list)
    refused: str | None = None
    failed: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**vars(self), "paths": [tests.as_dict() for tests in self.paths]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CellResult:
        """The other way round."""
        return cls(**{**data, "paths": [PathTests(**tests) for tests in data["paths"]]})


def run_cell(models: Models, cell: Cell, work: Callable[[LLM], dict[str, Any]]) -> CellResult:
    """What `work` finds out with the cell's engine; errors that ssd_lab raises on purpose become part of the result.

    KeyboardInterrupt goes through.
    """
    start = time.perf_counter()
    try:
        llm = models.llm(cell.configuration, cell.batch, watched=cell.temperature > 0)
    except ConfigError as error:
        return CellResult(cell.key, time.perf_counter() - start, refused=str(error))
    with llm:
        try:
            found = work(llm)
        except SsdLabError as error:
            found = {"failed": f"{type(error).__name__}: {error}"}
    return CellResult(cell.key, time.perf_counter() - start, **found)


def compare_greedy(llm: LLM, prompts: Sequence[Any], params: SamplingParams, expected: Tokens) -> dict[str, Any]:
    """How many tokens differ from the expected ones at temperature 0."""
    result = _complete(llm.run(list(prompts), params))
    differing, _ = compare_tokens(expected, [output.token_ids for output in result.outputs])
    return {"tokens": sum(map(len, expected)), "differing": differing}


def check_decisions(llm: LLM, prompts: Sequence[list[int]], cell: Cell, *, draws: int, seed: int) -> dict[str, Any]:
    """Does every decision on every path follow its law? Until at least `draws` tokens were emitted."""
    evidence = Evidence(llm.target.config.vocab_size, seed, cell.key)
    number = 0
    while evidence.num_tokens < draws:
        wave = range(number, number + REQUESTS_A_ROW * cell.batch)
        number = wave.stop
        _wave(llm, evidence, [prompts[i % len(prompts)] for i in wave], wave, cell.temperature, f"{seed} {cell.key}")
    return {"tokens": evidence.num_tokens, "paths": evidence.tests()}


def _wave(llm: LLM, evidence: Evidence, prompts: list[list[int]], numbers: range, temperature: float, key: str) -> None:
    sets = _filters(temperature)
    filters = [sets[number % len(sets)] for number in numbers]
    params = [
        SamplingParams(
            **own.as_params(), max_tokens=TOKENS_A_REQUEST, ignore_eos=True, seed=_request_seed(f"{key} {number}")
        )
        for own, number in zip(filters, numbers, strict=True)
    ]
    result = _complete(llm.run(prompts, params))
    targets: dict[int, Floats] = {}
    for output, own in zip(result.outputs, filters, strict=True):
        logits = llm.score([*output.prompt_ids, *output.token_ids[:-1]])[len(output.prompt_ids) - 1 :]
        targets[output.request_id] = probabilities(logits, own)
    strategy = llm.strategy
    if not isinstance(strategy, WatchedStrategy):
        raise TypeError("a sampled cell watches its strategy")
    prompt_lengths = {output.request_id: len(output.prompt_ids) for output in result.outputs}
    unfiltered = Filters(temperature)
    filtered = {output.request_id: own != unfiltered for output, own in zip(result.outputs, filters, strict=True)}
    evidence.add(steps_of(strategy.take(), targets, prompt_lengths, filtered))


def _filters(temperature: float) -> list[Filters]:
    """As the requests take them in turn: as often none as one of the others, cut to a small vocabulary."""
    plain = Filters(temperature)
    others = (
        Filters(temperature, top_p=0.8),
        Filters(temperature, top_k=5),
        Filters(temperature, top_k=8, top_p=0.9, min_p=0.05),
        Filters(temperature, top_p=0.5),
    )
    return [own for other in others for own in (plain, other)]


def _complete(result: RunResult) -> RunResult:
    """Raise KeyboardInterrupt for a run that was ended, DraftWorkerError for one that lost its draft."""
    if any(output.finish_reason == "cancelled" for output in result.outputs):
        raise KeyboardInterrupt
    if "degraded" in result.trace.meta:
        raise DraftWorkerError(f"the run went on without its draft: {result.trace.meta['degraded']}")
    return result


def _request_seed(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)
