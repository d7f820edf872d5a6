"""One cell of the grid: a configuration at one temperature and batch size, run and tested."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
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
from ssd_lab.errors import ConfigError
from ssd_lab.models.loader import LoadedModel
from ssd_lab.results import RunResult
from ssd_lab.strategies import registry

TOKENS_A_REQUEST = 40
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
        strategy = registry.config(configuration.strategy, self._with_head(configuration.strategy, configuration.fields))
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
class CellResult:
    """What came of a cell. problem: why nothing did (the engine refused the configuration, or lost its draft)."""

    models: str
    configuration: Configuration
    temperature: float
    batch: int
    seconds: float
    tokens: int = 0
    differing: int | None = None
    paths: list[PathTests] = field(default_factory=list)
    problem: str | None = None


def run_greedy(
    models: Models,
    configuration: Configuration,
    batch: int,
    prompts: Sequence[Any],
    expected: Sequence[Sequence[int]],
    params: SamplingParams,
) -> CellResult:
    """Temperature 0: how many tokens differ from the expected ones?"""
    start = time.perf_counter()
    try:
        with models.llm(configuration, batch) as llm:
            result = _complete(llm.run(list(prompts), params))
    except ConfigError as error:
        return CellResult(models.name, configuration, 0.0, batch, time.perf_counter() - start, problem=str(error))
    differing, _ = compare_tokens(expected, [output.token_ids for output in result.outputs])
    seconds, tokens = time.perf_counter() - start, sum(map(len, expected))
    return CellResult(models.name, configuration, 0.0, batch, seconds, tokens, differing)


def run_sampled(
    models: Models,
    configuration: Configuration,
    temperature: float,
    batch: int,
    prompts: Sequence[list[int]],
    *,
    draws: int,
    seed: int,
) -> CellResult:
    """Temperature > 0: does every decision on every path follow its law? Until at least `draws` tokens were emitted."""
    start = time.perf_counter()
    evidence = Evidence(models.target.config.vocab_size, seed)
    try:
        with models.llm(configuration, batch, watched=True) as llm:
            number = 0
            while evidence.num_tokens < draws:
                wave = range(number, number + REQUESTS_A_ROW * batch)
                number = wave.stop
                key = f"{seed} {configuration.label} {temperature} {batch}"
                _wave(llm, evidence, [prompts[i % len(prompts)] for i in wave], wave, temperature, key)
    except ConfigError as error:
        seconds = time.perf_counter() - start
        return CellResult(models.name, configuration, temperature, batch, seconds, problem=str(error))
    seconds = time.perf_counter() - start
    paths = evidence.tests()
    return CellResult(models.name, configuration, temperature, batch, seconds, evidence.num_tokens, paths=paths)


def _wave(
    llm: LLM, evidence: Evidence, prompts: list[list[int]], numbers: range, temperature: float, key: str
) -> None:
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
    return [plain, Filters(temperature, top_p=0.8), plain, Filters(temperature, top_k=5)] + [
        *(plain, Filters(temperature, top_k=8, top_p=0.9, min_p=0.05), plain, Filters(temperature, top_p=0.5)),
    ]


def _complete(result: RunResult) -> RunResult:
    """Raise KeyboardInterrupt for a run that was ended, ConfigError for one that lost its draft."""
    if any(output.finish_reason == "cancelled" for output in result.outputs):
        raise KeyboardInterrupt
    if "degraded" in result.trace.meta:
        raise ConfigError(f"the run went on without its draft: {result.trace.meta['degraded']}")
    return result


def _request_seed(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)
