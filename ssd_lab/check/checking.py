"""The whole check: greedy and distribution, for a pair of models and some strategies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssd_lab.check.distribution import check_distribution
from ssd_lab.check.greedy import check_greedy
from ssd_lab.check.prompts import check_prompts
from ssd_lab.check.report import CheckReport
from ssd_lab.check.subjects import Models, StrategyLike, resolve, takes_draft
from ssd_lab.models.loader import LoadedModel

DEFAULT_STRATEGIES: tuple[StrategyLike, ...] = (
    "sync_chain",
    {"strategy": "async_tree", "fallback": "jit"},
    {"strategy": "async_tree", "fallback": "fast"},
    "sync_tree",
    {"strategy": "sync_tree", "tree": {"kind": "dynamic", "top_k": 4, "depth": 5, "num_nodes": 16}},
    "prompt_lookup",
    "suffix_tree",
    "cascade",
)
NUM_CONTEXTS = 40  # prompts of the distribution check; its contexts are these and every text that grows from them


@dataclass(frozen=True)
class Extent:
    """How much to check."""

    num_prompts: int = 200
    max_tokens: int = 64
    batches: tuple[int, ...] = (1, 4, 16)
    temperatures: tuple[float, ...] = (0.7, 1.0)
    draws: int = 20_000

    @classmethod
    def quick(cls) -> Extent:
        """A few minutes on a laptop; finds gross faults."""
        return cls(num_prompts=24, max_tokens=32, batches=(1, 4), temperatures=(1.0,), draws=3_000)


def check(
    strategies: Sequence[StrategyLike] = DEFAULT_STRATEGIES,
    *,
    target: LoadedModel | str | None = None,
    draft: LoadedModel | str | None = None,
    prompts: Sequence[Any] | None = None,
    extent: Extent | None = None,
    seed: int = 0,
    dtype: str = "auto",
    chat: bool | None = None,
    progress: bool = True,
    **engine: Any,
) -> CheckReport:
    """Compare strategies with autoregressive decoding; names, dictionaries with `strategy` and its fields, or configs.

    prompts: yours instead of the built-in ones. engine: further fields of EngineConfig. Ctrl-C returns what is known.
    """
    extent = extent or Extent()
    configs = resolve(strategies)
    models = Models.load(target, draft, dtype=dtype, chat=chat, progress=progress, **engine)
    many = list(prompts) if prompts is not None else check_prompts(extent.num_prompts)
    report = CheckReport(
        settings={
            "target": models.target.source,
            "draft": models.draft.source if models.draft is not None and takes_draft(configs) else None,
            "strategies": {label: config.model_dump(mode="json") for label, config in configs.items()},
            "num_prompts": len(many),
            "max_tokens": extent.max_tokens,
            "draws": extent.draws,
            "seed": seed,
            "dtype": str(models.target.dtype).removeprefix("torch."),
        }
    )
    try:
        if extent.batches:
            check_greedy(
                models,
                configs,
                many,
                max_tokens=extent.max_tokens,
                batches=extent.batches,
                progress=progress,
                results=report.greedy,
            )
        if extent.temperatures:
            check_distribution(
                models,
                configs,
                many[:NUM_CONTEXTS],
                temperatures=extent.temperatures,
                draws=extent.draws,
                seed=seed,
                progress=progress,
                results=report.paths,
            )
    except KeyboardInterrupt:
        report.interrupted = True
    return report
