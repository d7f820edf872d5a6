"""The calibration of seconds: measure, score every candidate on the virtual clock, confirm the best by running them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from ssd_lab import demo
from ssd_lab.assembly.build import resolve_device
from ssd_lab.common.progress import progress_bar
from ssd_lab.config import EngineConfig, SamplingParams
from ssd_lab.errors import ConfigError, PromptError, RunInterrupted
from ssd_lab.llm import Prompt
from ssd_lab.models.eagle3.loader import read_eagle3_config
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.simulate import HardwareProfile, find_profile
from ssd_lab.simulate.published import PUBLISHED_PROFILES
from ssd_lab.trace import Trace
from ssd_lab.trace.outcomes import halves
from ssd_lab.tune.calibration import K, calibrate
from ssd_lab.tune.candidates import BUNDLED_HEAD, LOOKAHEADS, Candidate, coarse_grid, grid, variants
from ssd_lab.tune.corrections import Coefficients, Confidence
from ssd_lab.tune.full_grid import measured_grid, simulated_grid
from ssd_lab.tune.recorded_runs import Paired, Subject, run_in_turn
from ssd_lab.tune.scoring import Scorer, TuneMachine, drafted_rounds, head_model, outcome_model
from ssd_lab.tune.tuning import Scored, Tuning

FINALISTS = 5  # families, at most
LEAST_FINALISTS = 3
NEAR = 0.7  # of the best prediction: families below it are not run
LEAST_BUDGET_S = 2.0
CONFIRMED_BY = 0.95  # share of the budget; closing what was opened takes a moment too
_PARTS = 6  # of a calibration, for the progress bar


def tune(
    prompts: Prompt | Sequence[Prompt] | None = None,
    *,
    target: LoadedModel | str | None = None,
    draft: LoadedModel | str | None = None,
    budget_s: float = 30.0,
    batch: int = 1,
    temperature: float = 0.0,
    max_tokens: int = 64,
    hardware: str | PathLike[str] | HardwareProfile | None = None,
    trace: Trace | None = None,
    full_grid: bool = False,
    head: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = True,
    **fields: Any,
) -> Tuning:
    """The fastest strategy, k, schedule and fallback for these prompts, this pair of models and this machine.

    budget_s: seconds of measuring and confirming, loading left out. batch: sequences decoded together. fields: further
    sampling and engine fields. head: folder or hub id of an EAGLE3 head to try too (None: the bundled one for the
    bundled target). With `hardware` and `trace` (of an `async_tree` run, with recovery ranks) nothing is
    measured: every candidate is priced there. full_grid: also try the winner against a full grid, for as long as it
    takes.

    Raises ConfigError for a budget, batch or combination that is not allowed. Ctrl-C raises KeyboardInterrupt; once
    candidates are ranked that is RunInterrupted, whose `result` is the ranking.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}; it must be at least 1")
    if (hardware is None) != (trace is None):
        raise ConfigError("hardware and trace go together: rounds that were recorded, and a machine to price them on")
    if hardware is not None and trace is not None:
        return _on_hardware(find_profile(hardware), trace, batch, full_grid)
    if budget_s < LEAST_BUDGET_S:
        raise ConfigError(f"budget_s is {budget_s}; a calibration takes {LEAST_BUDGET_S:g} s at the very least")
    sampling = {name: fields.pop(name) for name in list(fields) if name in SamplingParams.model_fields}
    engine = {name: fields.pop(name) for name in list(fields) if name in EngineConfig.model_fields}
    if fields:
        raise ConfigError(f"{', '.join(sorted(fields))}: tune takes sampling and engine fields, and picks the rest")
    many = _prompts(prompts)
    if target is None:
        target, draft = str(demo.TARGET), str(demo.DRAFT) if draft is None else draft
    if draft is None:
        raise ConfigError("tuning needs a draft model: pass draft=<hub id, folder or .gguf file>")
    place = str(resolve_device(device))
    loaded = [
        load_model(one, dtype=dtype, device=place, progress=progress) if isinstance(one, str) else one
        for one in (target, draft)
    ]
    engine |= {"device": place, "dtype": dtype, "max_batch": batch}
    params = SamplingParams(temperature=temperature, max_tokens=max_tokens, **sampling)
    subject = Subject(loaded[0], loaded[1], many, params, engine)
    if head is None and target == str(demo.TARGET):
        head = BUNDLED_HEAD
    elif head is not None:
        read_eagle3_config(head, loaded[0].config)  # what is no head of this target is told before the work
    try:
        tuning = _measured(subject, batch, budget_s, progress, head)
    except RunInterrupted as stopped:
        if isinstance(stopped.result, Tuning):
            raise
        raise KeyboardInterrupt("interrupted while measuring: nothing is ranked yet") from stopped
    further: dict[str, Any] = {"target": target, "draft": draft} if isinstance(target, str) else {}
    if target == str(demo.TARGET):
        further = {}
    further |= ({"temperature": temperature} if temperature else {}) | ({"max_batch": batch} if batch != 16 else {})
    tuning = replace(tuning, further=further)
    return (
        replace(tuning, grid=measured_grid(subject, tuning.winner.candidate, coarse_grid(head)))
        if full_grid
        else tuning
    )


def _measured(subject: Subject, batch: int, budget_s: float, progress: bool, head: str | None) -> Tuning:
    start_s = time.perf_counter()
    with progress_bar(_PARTS + 1, "tune", "part", enabled=progress) as bar:
        found = calibrate(subject, batch, budget_s, lambda part: bar.update(1), head=head)
        seconds = found.seconds
        bar.update(1)
        scored_from_s = time.perf_counter()
        texts = [one for one in found.trace.requests if one.token_ids]
        coefficients = Coefficients.along(subject, texts) if subject.params.temperature > 0 and texts else None
        scorer = Scorer(
            outcome_model(found.trace), found.machine, texts, batch, coefficients,
            Confidence.along(subject, found.trace, K), drafted_rounds(found.trace, K), head_model(found.head),
        )  # fmt: skip
        ranking = scorer.best_first(grid(found.trace, head=head))
        seconds["scoring"] = time.perf_counter() - scored_from_s
        bar.update(1)
        confirm_from_s = time.perf_counter()
        finalists = _finalists(ranking)
        paired, stopped = Paired({}), False
        try:
            run_in_turn(
                subject,
                [one.candidate for one in finalists],
                paired,
                end_s=start_s + CONFIRMED_BY * budget_s,
                start_s=found.start_s,
                per_pass=batch,
            )
        except KeyboardInterrupt:
            stopped = True
        seconds["confirming"] = time.perf_counter() - confirm_from_s
    confirmed = [replace(one, measured_tokens_per_second=paired.speed(one.candidate)) for one in finalists]
    measured = [one for one in confirmed if one.measured_tokens_per_second is not None]
    measured.sort(key=lambda one: -one.tokens_per_second)
    labels = {one.candidate.label for one in measured}
    rest = scaled([one for one in ranking if one.candidate.label not in labels], measured)
    past = "go on past" if subject.params.ignore_eos else "end at"
    notes = [
        f"outcomes: {scorer.model.source}",
        f"texts {past} their end-of-text token" + ", as in `bench --prompt-file`" * (not subject.params.ignore_eos),
    ]
    best = measured[0].candidate if measured else None
    ratios = {one.candidate.label: paired.ratio(one.candidate, best) for one in measured[1:] if best is not None}
    device = subject.target.decoder.device
    tuning = Tuning([*measured, *rest], f"this machine ({device})", batch, seconds=seconds, notes=notes, ratios=ratios)
    if stopped:
        said = f"INTERRUPTED while the best were confirmed: {len(measured)} of {len(finalists)} were run"
        raise RunInterrupted(replace(tuning, notes=[said, *notes]), said)
    return tuning


def _finalists(ranking: Sequence[Scored]) -> list[Scored]:
    """The best of each family that comes near the best one, since predictions err by family, then those of the next
    families; autoregressive decoding always.
    """
    by_family: dict[str, Scored] = {}
    for one in ranking:
        by_family.setdefault(one.candidate.strategy, one)
    base = by_family.pop("autoregressive", None)
    families = list(by_family.values()) or [ranking[0]]
    near = [one for one in families if one.predicted_tokens_per_second >= NEAR * ranking[0].predicted_tokens_per_second]
    best = (near or families[:1])[:FINALISTS]
    for one in [*families, *ranking]:  # another family tells more than another k
        if len(best) < LEAST_FINALISTS and one not in best and one is not base:
            best.append(one)
    return [best[0], *([base] if base not in (None, best[0]) else []), *best[1:]]


def scaled(ranking: Sequence[Scored], measured: Sequence[Scored]) -> list[Scored]:
    """Predictions corrected by what confirmed candidates came to: those of the same family, else of all that draft; the
    fastest first.
    """
    found = {one.candidate.strategy: one.tokens_per_second / one.predicted_tokens_per_second for one in measured}
    drafting = [ratio for strategy, ratio in found.items() if strategy != "autoregressive"]
    usual = statistics.median(drafting or found.values()) if found else 1.0
    corrected = [replace(one, scale=found.get(one.candidate.strategy, usual)) for one in ranking]
    return sorted(corrected, key=lambda one: -one.tokens_per_second)


def _on_hardware(profile: HardwareProfile, trace: Trace, batch: int, full_grid: bool) -> Tuning:
    machine = TuneMachine(
        profile, profile, profile.overhead_s, "paper" if profile.name in PUBLISHED_PROFILES else "full"
    )
    learned, tried = halves(trace) if full_grid else (trace, trace)
    model = outcome_model(learned)
    candidates: list[Candidate] = grid(learned)
    drafted = drafted_rounds(learned, max(LOOKAHEADS))
    ranking = Scorer(model, machine, learned.requests, batch, drafted=drafted).best_first(candidates)
    notes = [*profile.notes, f"outcomes: {model.source}", f"every speed is simulated on {profile.name}"]
    tuning = Tuning(ranking, profile.name, batch, notes=notes, further={"max_batch": batch})
    if not full_grid:
        return tuning
    drafted = drafted_rounds(tried, max(LOOKAHEADS))
    judge = Scorer(outcome_model(tried), machine, tried.requests, batch, drafted=drafted)
    everything = [*candidates, *(other for one in candidates for other in variants(one))]
    return replace(tuning, grid=simulated_grid(judge, tuning.winner.candidate, everything))


def _prompts(prompts: Prompt | Sequence[Prompt] | None) -> list[Prompt]:
    if prompts is None:
        return list(demo.canned_prompts())
    many: list[Any] = [prompts] if isinstance(prompts, str) else list(prompts)
    if not many:
        raise PromptError("no prompt was given")
    return [many] if isinstance(many[0], int | dict) else many
