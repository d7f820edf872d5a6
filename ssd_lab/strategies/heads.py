"""An EAGLE3 head given as the draft: the strategy that drafts with one takes it."""

from __future__ import annotations

from typing import Any

from ssd_lab import demo
from ssd_lab.errors import ConfigError
from ssd_lab.models.eagle3.known import is_head
from ssd_lab.models.loader import LoadedModel
from ssd_lab.strategies.base import StrategyConfig


def with_head(strategy: StrategyConfig, head: str) -> StrategyConfig:
    """The strategy with this head wherever it, or a strategy within it, drafts with one."""
    changed: dict[str, Any] = {
        name: with_head(inner, head) for name, inner in strategy if isinstance(inner, StrategyConfig)
    }
    if strategy.draft_field is not None:
        changed[strategy.draft_field] = head
    return strategy.model_copy(update=changed)


def given_as_draft(
    strategy: StrategyConfig, draft: LoadedModel | str | None
) -> tuple[StrategyConfig, LoadedModel | str | None]:
    """The strategy, and what is left to be its draft model: a head given in its place becomes the strategy's own, and
    so does any other name where nothing but a head can be meant: the hub's, or one that is wrong and then refused.

    Raises ConfigError if the strategy drafts with a model, or has another head already.
    """
    known = {own for own in _heads(strategy) if own is not None}
    bundled = (None, str(demo.DRAFT), *demo.NAMED)  # what stands there where no draft is given
    can_be_head = isinstance(draft, str) and draft not in bundled and not (strategy.uses_draft or known)
    if not is_head(draft) and not (can_be_head and _heads(strategy)):
        return strategy, draft
    taking = with_head(strategy, str(draft))
    if known - {str(draft)}:
        raise ConfigError(f"two EAGLE3 heads were given: {draft} as the draft and {known.pop()} as a field: name one")
    if strategy.uses_draft:
        raise ConfigError(
            f"{draft} is an EAGLE3 head, and {strategy.strategy_name} drafts with a model: take the strategy eagle3, "
            "or a draft model"
        )
    return taking, None


def _heads(strategy: StrategyConfig) -> list[str | None]:
    own = [] if strategy.draft_field is None else [getattr(strategy, strategy.draft_field)]
    return own + [head for _, inner in strategy if isinstance(inner, StrategyConfig) for head in _heads(inner)]
