"""Scores a run's texts: were the answers right? Speculation must not change that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, Protocol

from ssd_lab.bench.quality import gsm8k, humaneval
from ssd_lab.bench.quality.results import PromptScore, QualityResult
from ssd_lab.bench.quality.sandbox import Limits, SandboxResult, run_job
from ssd_lab.errors import ConfigError

SCORED = ("gsm8k", "humaneval")


class Problem(Protocol):
    """A prompt with its right answer, as `ssd_lab.bench.data.BenchPrompt` is one."""

    @property
    def id(self) -> str:
        """Unique within its data set."""

    @property
    def text(self) -> str:
        """What the model was asked."""

    @property
    def reference(self) -> str | None:
        """The right answer."""

    @property
    def extra(self) -> dict[str, Any]:
        """HumanEval: `test` and `entry_point`, where known."""


class Text(Protocol):
    """A text, as `ssd_lab.results.Output` is one."""

    @property
    def text(self) -> str:
        """What the model wrote."""


def score(
    dataset: str, prompts: Sequence[Problem], outputs: Sequence[Text], *, limits: Limits | None = None
) -> QualityResult:
    """Score one output for each prompt. Sets without right answers are handed back unscored, with a note.

    HumanEval's candidates run in sandboxed processes, at once as many as there are CPU cores; limits bound each.
    Raises ConfigError if prompts and outputs differ in number.
    """
    if len(prompts) != len(outputs):
        raise ConfigError(f"{len(outputs)} outputs were given for {len(prompts)} prompts: give one for each")
    if dataset == "gsm8k":
        scores = [_number_score(prompt, output) for prompt, output in zip(prompts, outputs, strict=True)]
        return QualityResult(dataset=dataset, metric="exact_match", scores=tuple(scores))
    if dataset == "humaneval":
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            judged = list(pool.map(lambda prompt, output: _program_score(prompt, output, limits), prompts, outputs))
        guarded = {holds for _, result in judged if result is not None for holds in result.holds}
        return QualityResult(
            dataset=dataset,
            metric="pass@1",
            scores=tuple(prompt_score for prompt_score, _ in judged),
            sandbox=tuple(sorted(guarded)),
        )
    note = f"{dataset} has no answers that a program could check; those of {' and '.join(SCORED)} are"
    return QualityResult(dataset=dataset, metric="none", note=note)


def _number_score(prompt: Problem, output: Text) -> PromptScore:
    expected, _ = gsm8k.answer(prompt.reference or "")
    if expected is None:
        return PromptScore(id=prompt.id, passed=None, detail="the reference has no number")
    found, method = gsm8k.answer(output.text)
    return PromptScore(
        id=prompt.id, passed=found == expected, method=method, found=_shown(found), expected=_shown(expected)
    )


def _shown(number: Decimal | None) -> str:
    return "" if number is None else format(number, "f")


def _program_score(prompt: Problem, output: Text, limits: Limits | None) -> tuple[PromptScore, SandboxResult | None]:
    built = humaneval.build_job(prompt.text, output.text, prompt.extra)
    if built is None:
        return PromptScore(id=prompt.id, passed=None, detail="it has neither tests nor examples at hand"), None
    job, method = built
    result = run_job(job, limits)
    passed = result.status == "passed"
    if not passed and method == "examples" and not _reference_passes(prompt, limits):
        detail = "its examples contradict its own solution, and its tests are not at hand"
        return PromptScore(id=prompt.id, passed=None, method=method, detail=detail), result
    verdict = PromptScore(id=prompt.id, passed=passed, method=method, found=result.status, detail=result.detail)
    return verdict, result


def _reference_passes(prompt: Problem, limits: Limits | None) -> bool:
    """A few docstrings show wrong outputs; where there is no solution to tell, the examples are believed."""
    if not prompt.reference:
        return True
    built = humaneval.build_job(prompt.text, prompt.reference, prompt.extra)
    return built is None or run_job(built[0], limits).status == "passed"
