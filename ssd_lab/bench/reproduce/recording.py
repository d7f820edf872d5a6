"""What the sections are about: asynchronous speculation recorded once for each temperature, with the rank of every
recovery token among the draft's candidates, and what both models thought along these texts.

A rank tells of any schedule whether it would have hit, and neither a hit nor the `jit` fallback changes what is drafted
(branch and chain draw each token from the same distribution at the same place), so one recording serves all schedules
and budgets. Each part is made when a section asks for it, and kept in a folder: what is there is not made again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ssd_lab import __version__, demo
from ssd_lab.bench.claim import claim
from ssd_lab.bench.data import load_prompts
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM
from ssd_lab.simulate.coefficient import distributions_along
from ssd_lab.simulate.confidence_replay import DraftConfidence, confidence_along
from ssd_lab.trace import SequenceRound, Trace, load_trace

DATASETS = ("gsm8k", "humaneval", "ultrafeedback")
TEMPERATURES = (0.0, 0.7, 1.0)
UNIFORM = 3  # fan-out of the cache whose hits are noted in the rounds
CHAIN_K = 5  # draft tokens of the rounds that compare the EAGLE3 head with the draft
LONGEST_PROMPT = 1200  # characters; the bundled models were trained on short texts
PLACES = 500  # of the text for which both distributions are kept

_T = TypeVar("_T")


class Recordings:
    """Runs of `prompts` prompts of each bundled set. folder: where parts are kept and looked for (None: in memory
    alone). fields: of `ssd_lab.LLM`.

    Raises ConfigError for fewer than two prompts (schedules are fitted on one half and tried on the other), and for a
    folder whose parts were made with other settings.
    """

    def __init__(
        self,
        *,
        target: str | None = None,
        draft: str | None = None,
        k: int = 7,
        prompts: int = 24,
        max_tokens: int = 96,
        seed: int = 0,
        folder: Path | None = None,
        progress: bool = False,
        **fields: Any,
    ) -> None:
        if prompts < 2:
            raise ConfigError(
                f"prompts is {prompts}; schedules are fitted on one half and tried on the other: at least 2"
            )
        self.k = k
        self.bundled = target is None  # whose EAGLE3 head is known
        self._models = (target or str(demo.TARGET), draft or str(demo.DRAFT))
        self._texts, self._max_tokens, self._seed = _texts(prompts, seed), max_tokens, seed
        self._progress, self._fields, self._folder = progress, fields, folder
        self._parts: dict[str, Any] = {}
        self.settings: dict[str, Any] = {
            "ssd_lab": __version__, "target": target or "bundled", "draft": draft or "bundled", "k": k,
            "datasets": list(DATASETS), "prompts of each": prompts, "max_tokens": max_tokens, "seed": seed, **fields,
        }  # fmt: skip
        if folder is not None:
            claim(folder, self.settings)

    @property
    def traces(self) -> dict[float, Trace]:
        """By temperature, with ranks and with the hits of f = 3."""
        return {temperature: self.trace(temperature) for temperature in TEMPERATURES}

    def trace(self, temperature: float) -> Trace:
        """The rounds at one temperature."""

        def make() -> Trace:
            with self._opened("async_tree", k=self.k, f=UNIFORM) as llm:
                return self._run(llm, temperature)

        return self._part(f"rounds-{temperature:g}.jsonl.gz", make, load_trace, lambda trace, path: trace.save(path))

    def opinions(self, temperature: float) -> DraftConfidence:
        """What the draft thought of each of these rounds: all that spending a budget by confidence looks at."""
        trace = self.trace(temperature)

        def make() -> DraftConfidence:
            with LLM(self._models[1], None, "autoregressive", progress=False, **self._fields) as llm:
                return confidence_along(trace, llm.score, self.k, temperature)

        return self._part(f"opinions-{temperature:g}.npz", make, DraftConfidence.load, DraftConfidence.save)

    def distributions(self, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The target's and the draft's `[places, vocab]` along the texts."""
        trace = self.trace(temperature)

        def make() -> list[np.ndarray]:
            found, sampling = [], (temperature, 0, 1.0, 0.0)
            for model in self._models:
                with LLM(model, None, "autoregressive", progress=False, **self._fields) as llm:
                    found.append(distributions_along(trace.requests, llm.score, sampling, PLACES).numpy())
            return found

        def save(arrays: list[np.ndarray], path: Path) -> None:
            np.savez_compressed(path, *arrays)

        def load(path: Path) -> list[np.ndarray]:
            with np.load(path) as held:
                return [held[name] for name in held.files]

        target, draft = self._part(f"distributions-{temperature:g}.npz", make, load, save)
        return torch.from_numpy(target), torch.from_numpy(draft)

    def requests_of(self, trace: Trace, dataset: str) -> list[int]:
        """Ids of the requests whose prompts are of this set."""
        ids = (request.request_id for request in trace.requests)
        return [own for own, (name, _) in zip(ids, self._texts, strict=True) if name == dataset]

    def chain(self, strategy: str) -> Trace:
        """Greedy rounds of k = 5 of a synchronous strategy, on the same prompts."""

        def make() -> Trace:
            with self._opened(strategy, k=CHAIN_K) as llm:
                return self._run(llm, 0.0)

        return self._part(f"chain-{strategy}.jsonl.gz", make, load_trace, lambda trace, path: trace.save(path))

    def _opened(self, strategy: str, **own: Any) -> LLM:
        target, draft = self._models
        return LLM(
            target, None if strategy == "eagle3" else draft, strategy, progress=self._progress, **own, **self._fields
        )

    def _run(self, llm: LLM, temperature: float) -> Trace:
        seeds = (self._seed * 10_000 + i for i in range(len(self._texts)))
        params = [SamplingParams(temperature=temperature, max_tokens=self._max_tokens, seed=seed) for seed in seeds]
        return llm.run([text for _, text in self._texts], params).trace

    def _part(
        self, name: str, make: Callable[[], _T], load: Callable[[Path], _T], save: Callable[[_T, Path], None]
    ) -> _T:
        if name not in self._parts:
            path = None if self._folder is None else self._folder / name
            if path is not None and path.exists():
                self._parts[name] = load(path)
            else:
                made = self._parts[name] = make()
                if path is not None:
                    unfinished = path.with_name(f"unfinished-{name}")  # what is cut off must not pass for a part
                    save(made, unfinished)
                    os.replace(unfinished, path)
        found: _T = self._parts[name]
        return found


def with_hits(trace: Trace, fan_out: Sequence[int]) -> Trace:
    """The trace with the lookups of a cache that prepares `fan_out` candidates at each accepted length."""
    before: dict[int, bool | None] = {}

    def noted(own: SequenceRound) -> SequenceRound:
        hit = before.get(own.request_id)
        known = own.recovery_rank is not None and len(own.draft_tokens) == len(fan_out) - 1
        before[own.request_id] = own.recovery_rank < fan_out[own.num_accepted] if known else None  # type: ignore[operator]
        return replace(own, cache_hit=hit, origin="hit" if hit else "jit")

    rounds = [replace(one, sequences=[noted(own) for own in one.sequences]) for one in trace.rounds]
    return replace(trace, rounds=rounds)


def _texts(prompts: int, seed: int) -> list[tuple[str, str]]:
    """Names of sets and prompts."""

    def short(dataset: str) -> Iterator[str]:
        return (p.text for p in load_prompts(dataset, None, seed=seed) if len(p.text) <= LONGEST_PROMPT)

    return [(dataset, text) for dataset in DATASETS for text, _ in zip(short(dataset), range(prompts), strict=False)]
