"""Short runs of the prompts: paired measurements, and the rounds that a calibration learns from."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ssd_lab.common.statistics import t_quantile
from ssd_lab.config import SamplingParams
from ssd_lab.llm import LLM, Prompt
from ssd_lab.models.loader import LoadedModel
from ssd_lab.results import RunResult
from ssd_lab.tune.candidates import Candidate
from ssd_lab.tune.tuning import Ratio

WARM_TOKENS = 12
LEAST_PASSES = 3
LEAST_STEPS = 12  # of a run, however short its budget: fewer rounds tell nothing


@dataclass(frozen=True)
class Subject:
    """What is run: models (loaded once), prompts, sampling, and fields of the engine."""

    target: LoadedModel
    draft: LoadedModel
    prompts: Sequence[Prompt]
    params: SamplingParams
    engine: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def opened(self, candidate: Candidate) -> Iterator[LLM]:
        """An engine for the candidate, warmed up."""
        with LLM(self.target, self.draft, candidate.strategy, progress=False, **self.engine, **candidate.fields) as llm:
            llm.run(self.prompts[0], self.params.model_copy(update={"max_tokens": WARM_TOKENS}))
            yield llm

    def run(self, llm: LLM, prompts: Sequence[Prompt], *, budget_s: float | None = None) -> RunResult:
        """Run prompts; one that takes longer than the budget ends early, with the rounds that there were."""
        threads = torch.get_num_threads()
        torch.set_num_threads(llm.threads)  # engines open at the same time share this setting
        end_s = None if budget_s is None else time.perf_counter() + budget_s
        try:
            return llm.run(
                list(prompts),
                self.params,
                on_step=lambda steps, _: steps < LEAST_STEPS or end_s is None or time.perf_counter() < end_s,
            ).whole()
        finally:
            torch.set_num_threads(threads)


@dataclass
class Paired:
    """Speeds of candidates that were run in turn on the same prompts, tokens per second by pass."""

    speeds: dict[str, list[float]]

    def speed(self, candidate: Candidate) -> float | None:
        """The geometric mean of the passes: in the same passes, the faster of two is the one whose ratio says so."""
        own = [speed for speed in self.speeds.get(candidate.label, ()) if speed]
        return statistics.geometric_mean(own) if own else None

    def ratio(self, candidate: Candidate, other: Candidate) -> Ratio:
        """Of the speeds of two candidates in the same passes: their logarithms' mean, and Student's interval."""
        pairs = zip(self.speeds[candidate.label], self.speeds[other.label], strict=False)
        logs = [math.log(one / two) for one, two in pairs if one and two]
        mean = statistics.fmean(logs)
        if len(logs) < 2:
            return Ratio(math.exp(mean))
        error = t_quantile(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
        return Ratio(*(math.exp(mean + off) for off in (0.0, -error, error)))


def run_in_turn(
    subject: Subject,
    candidates: Sequence[Candidate],
    paired: Paired,
    *,
    end_s: float,
    start_s: float,
    per_pass: int,
    passes: int = 9,
) -> None:
    """Pass after pass of all candidates until `end_s` (of the performance counter), each pass on the next prompts;
    speeds go to `paired` as they come. A few passes are made however late it is: one tells nothing apart.

    The first is always run, at least once, and so are those that start at once; another draft worker that would start
    after `end_s` is left out. start_s: what one takes to start.
    """
    with ExitStack() as stack:
        opened: list[tuple[Candidate, LLM]] = []
        for candidate in candidates:
            if opened and candidate.overlaps and time.perf_counter() + start_s > end_s:
                continue
            opened.append((candidate, stack.enter_context(subject.opened(candidate))))
        first_s = time.perf_counter()
        for number in range(passes):
            prompts = [subject.prompts[(number * per_pass + i) % len(subject.prompts)] for i in range(per_pass)]
            # the order turns around, so that a machine that slows down favours none
            for candidate, llm in opened if number % 2 == 0 else reversed(opened):
                speed = subject.run(llm, prompts).metrics.tokens_per_second
                paired.speeds.setdefault(candidate.label, []).append(speed or 0.0)
            passed_s = (time.perf_counter() - first_s) / (number + 1)
            if number + 1 >= LEAST_PASSES and time.perf_counter() + passed_s > end_s:
                break
