"""Scores a run's texts: were the answers right? Speculation must not change that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING

from ssd_lab.bench.quality import gsm8k, humaneval
from ssd_lab.bench.quality.results import PromptScore, QualityResult
from ssd_lab.bench.quality.sandbox import Limits, SandboxResult, run_program
from ssd_lab.errors import ConfigError

if TYPE_CHECKING:
    from ssd_lab.bench.data.prompt import BenchPrompt
    from ssd_lab.models.text.tokenizer import Tokenizer
    from ssd_lab.results import Output

SCORED = ("gsm8k", "humaneval")


def score(
    dataset: str,
    prompts: Sequence[BenchPrompt],
    outputs: Sequence[Output],
    *,
    tokenizer: Tokenizer | None = None,
    was_cut: Sequence[bool] | None = None,
    limits: Limits | None = None,
) -> QualityResult:
    """Score one output for each prompt. Sets without right answers are handed back unscored, with a note.

    tokenizer: the target's; each text is then judged up to its end token, for runs that went on past it (`ignore_eos`).
    was_cut: which prompts the model saw only the beginning of; those are not scored. limits: of each HumanEval
    candidate; they run in sandboxed processes, at once as many as there are CPU cores.
    Raises ConfigError if prompts and outputs differ in number.
    """
    if len(prompts) != len(outputs):
        raise ConfigError(f"{len(outputs)} outputs were given for {len(prompts)} prompts: give one for each")
    if dataset not in SCORED:
        note = f"{dataset} has no answers that a program could check; those of {' and '.join(SCORED)} are"
        return QualityResult(dataset=dataset, metric="none", note=note)
    texts = [_until_end(output, tokenizer) for output in outputs]
    cut = list(was_cut) if was_cut is not None else [False] * len(prompts)
    if dataset == "gsm8k":
        scores = [_cut(p) if c else _number_score(p, text) for p, text, c in zip(prompts, texts, cut, strict=True)]
        return QualityResult(dataset=dataset, metric="exact_match", scores=tuple(scores))
    return _score_programs(dataset, prompts, texts, cut, limits)


def _until_end(output: Output, tokenizer: Tokenizer | None) -> str:
    ends = () if tokenizer is None else tokenizer.eos_token_ids
    first = next((place for place, token in enumerate(output.token_ids) if token in ends), None) if ends else None
    return output.text if tokenizer is None or first is None else tokenizer.decode(output.token_ids[:first])


def _cut(prompt: BenchPrompt) -> PromptScore:
    return PromptScore(id=prompt.id, passed=None, detail="the prompt was cut: raise input_len to score it")


def _score_programs(
    dataset: str, prompts: Sequence[BenchPrompt], texts: list[str], cut: list[bool], limits: Limits | None
) -> QualityResult:
    def judge(prompt: BenchPrompt, text: str, was_cut: bool) -> tuple[PromptScore, SandboxResult | None]:
        return (_cut(prompt), None) if was_cut else _program_score(prompt, text, limits)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        judged = list(pool.map(judge, prompts, texts, cut))
    return QualityResult(
        dataset=dataset,
        metric="pass@1",
        scores=tuple(prompt_score for prompt_score, _ in judged),
        sandbox=tuple(sorted({result.guard for _, result in judged if result and result.guard})),
        note=next((f"the model's programs were {r.detail}" for _, r in judged if r and r.status == "refused"), ""),
    )


def _number_score(prompt: BenchPrompt, text: str) -> PromptScore:
    expected, _ = gsm8k.answer(prompt.reference or "")
    if expected is None:
        return PromptScore(id=prompt.id, passed=None, detail="the reference has no number")
    found, method = gsm8k.answer(text)
    return PromptScore(
        id=prompt.id, passed=found == expected, method=method, found=_shown(found), expected=_shown(expected)
    )


def _shown(number: Decimal | None) -> str:
    return "" if number is None else format(number, "f")


def _program_score(prompt: BenchPrompt, text: str, limits: Limits | None) -> tuple[PromptScore, SandboxResult | None]:
    built = humaneval.build_program(prompt.text, text, prompt.extra)
    if built is None:
        return PromptScore(id=prompt.id, passed=None, detail="it has neither tests nor examples at hand"), None
    program, method = built
    result = run_program(program, limits)
    if result.status == "refused":
        return PromptScore(id=prompt.id, passed=None, method=method, detail=result.detail), result
    passed = result.status == "passed"
    if not passed and method == "examples" and not _reference_passes(prompt, limits):
        detail = "its examples contradict its own solution, and its tests are not at hand"
        return PromptScore(id=prompt.id, passed=None, method=method, detail=detail), result
    verdict = PromptScore(id=prompt.id, passed=passed, method=method, found=result.status, detail=result.detail)
    return verdict, result


def _reference_passes(prompt: BenchPrompt, limits: Limits | None) -> bool:
    """A few docstrings show wrong outputs; where there is no solution to tell, the examples are believed."""
    if not prompt.reference:
        return True
    built = humaneval.build_program(prompt.text, prompt.reference, prompt.extra)
    return built is None or run_program(built[0], limits).status == "passed"
