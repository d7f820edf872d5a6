"""Figures while requests run: a bar with tokens per second and acceptance, and a callback for trackers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ssd_lab.common.progress import progress_bar
from ssd_lab.trace import Totals

# figures before the run's name, since a narrow terminal cuts the end; tqdm's own rate would count the prefill too
LAYOUT = "{percentage:3.0f}%|{bar:12}| [{elapsed}<{remaining}{postfix}] {desc}"
REFRESH_S = 0.2  # steps can take less than a millisecond; a reader sees no more than five pictures a second


@dataclass(frozen=True)
class LiveState:
    """One moment of a benchmark run; rates are those of the repeat so far (None: nothing to tell yet).

    place: of the run among those that take turns.
    """

    place: int
    label: str
    dataset: str
    repeat: int
    num_tokens: int
    expected_tokens: int
    tokens_per_second: float | None
    acceptance_rate: float | None
    cache_hit_rate: float | None


OnLive = Callable[[LiveState], None]


class Live:
    """Follows repeats and shows them. A context manager; between refreshes a step costs one look at the clock."""

    def __init__(self, expected_tokens: int, *, progress: bool, on_live: OnLive | None) -> None:
        self._bar: Any = progress_bar(expected_tokens, "benchmark", "tok", enabled=progress, layout=LAYOUT)
        self._watched = progress or on_live is not None
        self._on_live = on_live
        self._refreshed_s = 0.0
        self._shown = 0
        self._of: tuple[int, str, str, int, int] = (0, "", "", 0, 0)

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def begin(self, label: str, dataset: str, repeat: int, expected_tokens: int, *, place: int = 0) -> None:
        """A repeat starts."""
        self._of = (place, label, dataset, repeat, expected_tokens)
        self._shown = 0
        self._bar.set_description_str(f"{dataset}, repeat {repeat + 1}, {label}", refresh=False)

    def step(self, totals: Totals) -> None:
        """A step is over."""
        if not self._watched:
            return
        now_s = time.perf_counter()
        if now_s - self._refreshed_s >= REFRESH_S:
            self._refreshed_s = now_s
            self._show(totals)

    def end(self, totals: Totals) -> None:
        """The repeat is over: show its last state, and count a run that ended early as done."""
        if self._watched:
            self._show(totals)
            self._bar.update(max(0, self._of[-1] - self._shown))

    def extend(self, tokens: int) -> None:
        """One more repeat will come."""
        if self._bar.total is not None:
            self._bar.total += tokens

    def _show(self, totals: Totals) -> None:
        place, label, dataset, repeat, expected = self._of
        state = LiveState(
            place=place,
            label=label,
            dataset=dataset,
            repeat=repeat,
            num_tokens=totals.emitted,
            expected_tokens=expected,
            tokens_per_second=totals.tokens_per_second,
            acceptance_rate=_ratio(totals.accepted, totals.tested),
            cache_hit_rate=_ratio(totals.hits, totals.hits + totals.misses),
        )
        if self._on_live is not None:
            self._on_live(state)
        self._bar.set_postfix_str(_postfix(state), refresh=False)
        self._bar.update(totals.emitted - self._shown)
        self._shown = totals.emitted


def _postfix(state: LiveState) -> str:
    parts = []
    if state.tokens_per_second is not None:
        parts.append(f"{state.tokens_per_second:.0f} tok/s")
    if state.acceptance_rate is not None:
        parts.append(f"acceptance {state.acceptance_rate:.0%}")
    if state.cache_hit_rate is not None:
        parts.append(f"hits {state.cache_hit_rate:.0%}")
    return ", ".join(parts)


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None
