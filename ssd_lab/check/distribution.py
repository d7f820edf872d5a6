"""Temperature > 0: do the tokens of every path follow the target's distribution?

Which path drafts a round (hit, jit, fast, ...) is decided by earlier outcomes, before any of the round's random numbers
is looked at. So, given the text before it, every token that a round emits must follow the target's distribution
whatever its path, and the transform of `reference.py` gives one uniform number for each, over all contexts, seeds and
filters together. Per path these numbers are then tested for uniformity, and the tokens' surprise for its mean.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssd_lab.check.reference import Filters, Transform, Uniforms, filtered
from ssd_lab.check.statistics import bin_deviation, chi_square_uniform, kolmogorov_uniform, mean_zero
from ssd_lab.check.subjects import Models
from ssd_lab.common.progress import progress_bar
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM
from ssd_lab.results import RunResult
from ssd_lab.strategies import StrategyConfig

BATCH = 16
MIN_TESTED = 500  # with fewer draws a path is listed and not tested
MIN_SHARE = 0.05  # a path rarer than this is not waited for
WAVE = 4 * BATCH  # requests between two looks at the counts


@dataclass(frozen=True)
class PathResult:
    """One path of one strategy at one temperature: its draws and the p-values of its tests (empty: too few draws)."""

    strategy: str
    temperature: float
    path: str
    draws: int
    enough: bool
    deviation: float | None
    impossible: int
    p_values: dict[str, float] = field(default_factory=dict)


def filter_sets(temperature: float) -> list[Filters]:
    """The settings that requests take in turn: none, top-p, top-k, and all together."""
    return [
        Filters(temperature),
        Filters(temperature, top_p=0.9),
        Filters(temperature, top_k=50),
        Filters(temperature, top_k=100, top_p=0.95, min_p=0.02),
    ]


def check_distribution(
    models: Models,
    strategies: dict[str, StrategyConfig],
    prompts: Sequence[Any],
    *,
    temperatures: Sequence[float] = (0.7, 1.0),
    draws: int = 20_000,
    max_tokens: int = 24,
    seed: int = 0,
    progress: bool = True,
    results: list[PathResult] | None = None,
) -> list[PathResult]:
    """Draw until every common path has `draws` tokens, then test. `results` grows as strategies end."""
    if any(temperature <= 0 for temperature in temperatures):
        raise ConfigError(f"temperatures {list(temperatures)} were given: a distribution needs temperatures over 0")
    found = [] if results is None else results
    for label, config in strategies.items():
        with models.llm(config, max_batch=BATCH) as llm:
            for temperature in temperatures:
                sampler = PathSampler(llm, prompts, temperature, max_tokens=max_tokens, seed=seed)
                with progress_bar(draws, f"{label}, temperature {temperature:g}", "draw", enabled=progress) as bar:
                    while sampler.rarest < draws and sampler.total < 20 * draws:
                        before = min(draws, sampler.rarest)
                        sampler.wave()
                        bar.update(max(0, min(draws, sampler.rarest) - before))
                found += [
                    assess_path(label, temperature, path, uniforms, wanted=draws)
                    for path, uniforms in sampler.by_path().items()
                ]
    return found


def assess_path(label: str, temperature: float, path: str, uniforms: Uniforms, *, wanted: int) -> PathResult:
    """Test one path's numbers."""
    count = len(uniforms.probs)
    p_values: dict[str, float] = {}
    if count >= MIN_TESTED:
        p_values = {
            "chi-square by likelihood": chi_square_uniform(uniforms.by_likelihood).p_value,
            "Kolmogorov by likelihood": kolmogorov_uniform(uniforms.by_likelihood).p_value,
            "chi-square by shuffle": chi_square_uniform(uniforms.by_shuffle).p_value,
            "mean surprise": mean_zero(uniforms.surprise, uniforms.surprise_variance).p_value,
        }
    return PathResult(
        strategy=label,
        temperature=temperature,
        path=path,
        draws=count,
        enough=count >= wanted,
        deviation=bin_deviation(uniforms.by_likelihood) if p_values else None,
        impossible=int((uniforms.probs == 0).sum()),
        p_values=p_values,
    )


class PathSampler:
    """Runs short requests, new seeds each time, and collects one uniform number for each token by its round's path."""

    def __init__(self, llm: LLM, prompts: Sequence[Any], temperature: float, *, max_tokens: int, seed: int) -> None:
        self._llm = llm
        self._prompts = list(prompts)
        self._filters = filter_sets(temperature)
        self._max_tokens = max_tokens
        self._seed = seed
        self._num_requests = 0
        self._transform = Transform(llm.target.config.vocab_size, seed)
        self._parts: dict[str, list[Uniforms]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)

    @property
    def total(self) -> int:
        """Draws on all paths."""
        return sum(self._counts.values())

    @property
    def rarest(self) -> int:
        """Draws on the rarest path that is not too rare to wait for."""
        common = [count for count in self._counts.values() if count >= MIN_SHARE * self.total]
        return min(common, default=0)

    def by_path(self) -> dict[str, Uniforms]:
        """All numbers so far."""
        return {path: Uniforms.joined(parts) for path, parts in sorted(self._parts.items())}

    def wave(self) -> None:
        """Run some more requests."""
        numbers = range(self._num_requests, self._num_requests + WAVE)
        self._num_requests += WAVE
        # a step of 4 filters over prompts of any number: every prompt meets every filter
        filters = [self._filters[(i + i // len(self._prompts)) % len(self._filters)] for i in numbers]
        params = [
            SamplingParams(
                **own.as_params(), max_tokens=self._max_tokens, ignore_eos=True, seed=_request_seed(self._seed, i)
            )
            for i, own in zip(numbers, filters, strict=True)
        ]
        result = self._llm.run([self._prompts[i % len(self._prompts)] for i in numbers], params)
        if any(output.finish_reason == "cancelled" for output in result.outputs):
            raise KeyboardInterrupt
        if "degraded" in result.trace.meta:
            raise ConfigError(f"the check cannot go on without its draft: {result.trace.meta['degraded']}")
        self._collect(result, filters)

    def _collect(self, result: RunResult, filters: list[Filters]) -> None:
        paths: dict[int, list[str]] = defaultdict(list)
        for round_record in result.trace.rounds:
            for row in round_record.sequences:
                paths[row.request_id] += [row.origin] * row.num_emitted
        for output, own in zip(result.outputs, filters, strict=True):
            origins = np.asarray(paths[output.request_id])
            if len(origins) != len(output.token_ids):
                raise ConfigError(
                    f"the trace has {len(origins)} emitted tokens for request {output.request_id} and its text has "
                    f"{len(output.token_ids)}: the rounds were not recorded"
                )
            logits = self._llm.score([*output.prompt_ids, *output.token_ids[:-1]])[len(output.prompt_ids) - 1 :]
            uniforms = self._transform(filtered(logits, own), output.token_ids)
            for path in np.unique(origins):
                taken = origins == path
                self._parts[str(path)].append(uniforms.take(taken))
                self._counts[str(path)] += int(taken.sum())


def _request_seed(seed: int, number: int) -> int:
    digest = hashlib.blake2b(f"check:{seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
