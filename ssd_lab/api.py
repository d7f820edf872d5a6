"""The front door: run and compare."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from ssd_lab import demo
from ssd_lab.assembly.build import resolve_device, share_threads
from ssd_lab.common.progress import in_notebook
from ssd_lab.common.validation import validated
from ssd_lab.config import EngineConfig, SamplingParams
from ssd_lab.errors import ConfigError, RunInterrupted
from ssd_lab.llm import LLM, Prompt
from ssd_lab.models.eagle3.known import is_head
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.results import Comparison, RunResult
from ssd_lab.strategies import StrategyConfig, registry
from ssd_lab.strategies.registry import listed

EXTRA_S = 4.0  # that `compare` may spend on repeating each strategy
MOST_TURNS = 5
NOTEBOOK_DETAILS = 8  # tokens recorded at each place, so that a click on one answers


def run(
    prompts: Prompt | Sequence[Prompt] | None = None,
    *,
    strategy: str | StrategyConfig = "async_tree",
    target: LoadedModel | str | None = None,
    draft: LoadedModel | str | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    max_tokens: int = 128,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = True,
    chat: bool | None = None,
    warm_up: bool = False,
    repeats: int | None = 1,
    **fields: Any,
) -> RunResult:
    """Generate with one strategy: text, metrics and every round that happened. With no arguments: bundled models,
    canned prompts.

    fields: the strategy's knobs (`k`, `f`, ...), further sampling fields (`stop`, `logprobs`, `ignore_eos`, ...) and
    engine fields (`max_batch`, `gpus`, `placement`, ...). warm_up: on a GPU capture graphs and compile kernels before
    (`LLM.warm_up`), so that the run is as fast as every later one; without it rounds in which that happens are in no
    rate. repeats: turns of the same work; speeds are then means with intervals, texts and rounds those of the first
    turn. None: as many as a few more seconds have room for, by the time of the first.

    Ctrl-C raises RunInterrupted, a KeyboardInterrupt, so that a loop of runs ends too; its `result` is the run so far.
    In a notebook `record_details` is 8 if it is not given, so that the views have something to say about each token.
    """
    if in_notebook():
        fields.setdefault("record_details", NOTEBOOK_DETAILS)
    if repeats is not None and repeats < 1:
        raise ConfigError(f"repeats is {repeats}: give 1 or more, or None to have it chosen by the first turn's time")
    sampling = {name: fields.pop(name) for name in list(fields) if name in SamplingParams.model_fields}
    own = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p, "max_tokens": max_tokens}
    params = validated(SamplingParams, {**own, **sampling}, name="sampling")
    llm = LLM(target, draft, strategy, chat=chat, seed=seed, progress=progress, device=device, dtype=dtype, **fields)
    with llm:
        many = demo.canned_prompts() if prompts is None else prompts
        if warm_up:
            llm.warm_up(many, params)
        began_s = time.perf_counter()
        first = llm.run(many, params).whole()
        if repeats is None:
            repeats = turns_for(time.perf_counter() - began_s)
        return first if repeats == 1 else _repeated(first, repeats, lambda: llm.run(many, params))


def _repeated(first: RunResult, repeats: int, again: Callable[[], RunResult]) -> RunResult:
    turns = [first]
    try:
        while len(turns) < repeats:
            turns.append(again().whole())
    except RunInterrupted as stopped:
        said = f"interrupted: the text is whole, {len(turns)} of {repeats} turns were measured"
        raise RunInterrupted(_with_turns(first, turns), said) from stopped
    return _with_turns(first, turns)


def _with_turns(first: RunResult, turns: list[RunResult]) -> RunResult:
    speeds = [turn.metrics.tokens_per_second for turn in turns]
    return dataclasses.replace(first, turns=tuple(speed for speed in speeds if speed))


def turns_for(first_s: float) -> int:
    """How often to measure what took so long the first time: intervals need three turns, a learner seconds."""
    more = int(EXTRA_S / max(first_s, 1e-6))
    return min(MOST_TURNS, 1 + more) if more >= 2 else 1


def compare(
    prompts: Prompt | Sequence[Prompt] | None = None,
    *,
    strategies: Sequence[str | StrategyConfig | dict[str, Any]] = ("autoregressive", "sync_chain", "async_tree"),
    target: LoadedModel | str | None = None,
    draft: LoadedModel | str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = True,
    warm_up: bool = True,
    repeats: int | None = None,
    **fields: Any,
) -> Comparison:
    """Run several strategies on the same prompts, side by side, with speed-ups over autoregressive decoding.

    strategies: names, configs, or dictionaries with `strategy` and its fields; one alone is fine too. A knob given in
    `fields` goes to each strategy that has it. The models are loaded once (with `gpus` or `placement` for each strategy
    anew, since each may have other devices). On a CPU every target gets the same number of threads, that of the
    strategy which has fewest (give `threads` to choose). warm_up, repeats: see `run`. Ctrl-C raises RunInterrupted,
    whose `result` is the comparison of the runs so far; one that was cut is marked, and compared with nothing.
    """
    if target is None:
        target = str(demo.TARGET)
        draft = str(demo.DRAFT) if draft is None else draft
    runs: dict[str, RunResult] = {}
    if fields.get("gpus") is None and fields.get("placement") is None:
        options: dict[str, Any] = {"dtype": dtype, "device": str(resolve_device(device)), "progress": progress}
        target = load_model(target, **options) if isinstance(target, str) else target
        draft = load_model(draft, **options) if isinstance(draft, str) and not is_head(draft) else draft
    asked = listed(strategies)
    each = [_with_shared(strategy, own, fields) for strategy, own in asked]
    threads = _equal_threads([strategy for strategy, _ in asked], each, device)
    for (strategy, own), fields_of_it in zip(asked, each, strict=True):
        try:
            result = run(
                prompts, strategy=strategy, target=target, draft=draft, device=device, dtype=dtype,
                progress=progress, warm_up=warm_up, repeats=repeats, **{**threads, **fields_of_it},
            )  # fmt: skip
        except KeyboardInterrupt as stopped:
            cut = stopped.result if isinstance(stopped, RunInterrupted) else None
            if cut is not None:
                runs[_unused_name(cut.strategy["name"], own, runs)] = cut
            finished = sum(not each.interrupted for each in runs.values())
            said = f"interrupted: {finished} of {len(asked)} strategies are finished"
            raise RunInterrupted(Comparison(runs), said) from stopped
        runs[_unused_name(result.strategy["name"], own, runs)] = result
    return Comparison(runs)


def _with_shared(strategy: Any, own: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """A strategy's own fields, and of those given for all what it has."""
    knobs = set().union(*(set(cls.model_fields) for cls in registry.all().values()))
    shared = dict(fields)
    for name in knobs & set(shared):
        if isinstance(strategy, StrategyConfig) or name not in _fields_of(strategy) or name in own:
            del shared[name]
    return {**shared, **own}


def _equal_threads(strategies: list[Any], each: list[dict[str, Any]], device: str) -> dict[str, int]:
    """`threads` for every run, as many as that one gets which gets fewest: a draft that works meanwhile takes some.
    Nothing where they are given, or where several devices or a GPU compute.
    """
    if any({"threads", "gpus", "placement"} & set(fields) for fields in each):
        return {}
    on = resolve_device(device)
    if on.type != "cpu":
        return {}
    found = []
    for strategy, fields in zip(strategies, each, strict=True):
        engine = {name: value for name, value in fields.items() if name in EngineConfig.model_fields}
        knobs = {name: fields[name] for name in fields if name not in {*engine, *SamplingParams.model_fields}}
        config = validated(EngineConfig, engine, name="engine")
        found.append(share_threads(config, registry.config(strategy, knobs), on)[0])
    return {"threads": min(threads for threads in found if threads is not None)}


def _fields_of(strategy: Any) -> set[str]:
    found = registry.all().get(strategy) if isinstance(strategy, str) else strategy
    return set(getattr(found, "model_fields", ()))  # `run` says what is no strategy


def _unused_name(name: str, own: dict[str, Any], taken: dict[str, RunResult]) -> str:
    label = name if not own else f"{name} ({', '.join(f'{key}={value}' for key, value in own.items())})"
    number = 2
    unique = label
    while unique in taken:
        unique, number = f"{label} #{number}", number + 1
    return unique
