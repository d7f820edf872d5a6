"""The front door: run and compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssd_lab import demo
from ssd_lab.assembly.build import resolve_device
from ssd_lab.common.validation import validated
from ssd_lab.config import SamplingParams
from ssd_lab.errors import RunInterrupted
from ssd_lab.llm import LLM, Prompt
from ssd_lab.models.eagle3.known import is_head
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.results import Comparison, RunResult
from ssd_lab.strategies import StrategyConfig, registry
from ssd_lab.strategies.registry import listed


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
    **fields: Any,
) -> RunResult:
    """Generate with one strategy: text, metrics and every round that happened. With no arguments: bundled models,
    canned prompts.

    fields: the strategy's knobs (`k`, `f`, ...), further sampling fields (`stop`, `logprobs`, `ignore_eos`, ...) and
    engine fields (`max_batch`, `gpus`, `placement`, ...). warm_up: on a GPU capture graphs and compile kernels before
    (`LLM.warm_up`), so that the run is as fast as every later one; without it rounds in which that happens are in no
    rate. Ctrl-C raises RunInterrupted, a KeyboardInterrupt, so that a loop of runs ends too; its `result` is the run so
    far.
    """
    sampling = {name: fields.pop(name) for name in list(fields) if name in SamplingParams.model_fields}
    own = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p, "max_tokens": max_tokens}
    params = validated(SamplingParams, {**own, **sampling}, name="sampling")
    llm = LLM(target, draft, strategy, chat=chat, seed=seed, progress=progress, device=device, dtype=dtype, **fields)
    with llm:
        many = demo.canned_prompts() if prompts is None else prompts
        if warm_up:
            llm.warm_up(many, params)
        return llm.run(many, params).whole()


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
    **fields: Any,
) -> Comparison:
    """Run several strategies on the same prompts, side by side, with speed-ups over autoregressive decoding.

    strategies: names, configs, or dictionaries with `strategy` and its fields; one alone is fine too. A knob given in
    `fields` goes to each strategy that has it. The models are loaded once (with `gpus` or `placement` for each strategy
    anew, since each may have other devices). warm_up: see `run`. Ctrl-C raises RunInterrupted, whose `result` is the
    comparison of the runs so far; one that was cut is marked, and compared with nothing.
    """
    if target is None:
        target = str(demo.TARGET)
        draft = str(demo.DRAFT) if draft is None else draft
    runs: dict[str, RunResult] = {}
    if fields.get("gpus") is None and fields.get("placement") is None:
        options: dict[str, Any] = {"dtype": dtype, "device": str(resolve_device(device)), "progress": progress}
        target = load_model(target, **options) if isinstance(target, str) else target
        draft = load_model(draft, **options) if isinstance(draft, str) and not is_head(draft) else draft
    knobs = set().union(*(set(cls.model_fields) for cls in registry.all().values()))
    asked = listed(strategies)
    for strategy, own in asked:
        shared = dict(fields)
        for name in knobs & set(shared):
            if isinstance(strategy, StrategyConfig) or name not in _fields_of(strategy) or name in own:
                del shared[name]
        try:
            result = run(
                prompts, strategy=strategy, target=target, draft=draft, device=device, dtype=dtype,
                progress=progress, warm_up=warm_up, **{**shared, **own},
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
