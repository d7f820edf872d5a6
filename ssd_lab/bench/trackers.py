"""Results to an experiment tracker while they are measured, if one is asked for; nothing here is needed to measure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Literal

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.figures import estimates
from ssd_lab.bench.live import LiveState
from ssd_lab.bench.repeat import RepeatResult
from ssd_lab.bench.result import BenchResult
from ssd_lab.display.environment import describe
from ssd_lab.errors import ConfigError

PROJECT = "ssd_lab"  # where the tracker's own settings name none
LIVE_ROW_S = 2.0  # a chart of minutes needs no more points, and each costs a message to the tracker's process

Ending = Literal["finished", "failed", "interrupted"]
_log = logging.getLogger(__name__)
_EXIT_CODES: dict[Ending, int] = {"finished": 0, "failed": 1, "interrupted": 130}


class Tracking:
    """The open runs of a tracker, by any key; without a tracker every call does nothing.

    A context manager: a run that is still open when it is left ends as `interrupted` after Ctrl-C, as `failed` after
    any other error. A tracker that raises in the middle loses that run, with a warning, and the measurement goes on.
    """

    def __init__(self, tracker: WandbTracker | None) -> None:
        self._tracker = tracker
        self._open: dict[Hashable, WandbRun] = {}

    @property
    def active(self) -> bool:
        """Is there a tracker at all?"""
        return self._tracker is not None

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        ending: Ending = "interrupted" if kind is not None and issubclass(kind, KeyboardInterrupt) else "failed"
        told = None if ending == "interrupted" or error is None else f"{type(error).__name__}: {error}"
        for key in list(self._open):
            self._end(key, ending, told)

    def begin(self, key: Hashable, config: BenchConfig, group: str | None, name: str | None) -> None:
        """A run starts. Raises ConfigError if the tracker refuses it."""
        if self._tracker is not None:
            self._open[key] = self._tracker.start(config, group, name)

    def live(self, key: Hashable, state: LiveState) -> None:
        """A moment of that run."""
        self._try(key, lambda run: run.live(state))

    def repeat(self, key: Hashable, dataset: str, index: int, measured: RepeatResult) -> None:
        """A repeat of that run is over."""
        self._try(key, lambda run: run.repeat(dataset, index, measured))

    def end(self, key: Hashable, result: BenchResult | None, error: str | None = None) -> None:
        """That run is over: what it gave, or why it gave nothing."""
        if result is not None:
            self._try(key, lambda run: run.result(result))
        self._end(key, "failed" if result is None else "finished", error)

    def _end(self, key: Hashable, ending: Ending, error: str | None) -> None:
        self._try(key, lambda run: run.finish(ending, error))
        self._open.pop(key, None)

    def _try(self, key: Hashable, call: Callable[[WandbRun], None]) -> None:
        run = self._open.get(key)
        if run is None:
            return
        try:
            call(run)
        except Exception as error:  # of any kind: a tracker must not cost a measurement
            self._open.pop(key, None)
            _log.warning("the tracker lost a run, and the measurement goes on without it: %s", error)


class WandbTracker:
    """Weights & Biases. Its own settings (`WANDB_MODE`, `WANDB_PROJECT`, ...) hold where nothing is given here.

    mode: `offline` writes files for `wandb sync` and needs neither network nor account. folder: for its files.
    Raises ConfigError, before anything is measured, if the package wandb is not installed or nobody is logged in.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        folder: Path | None = None,
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                "logging to Weights & Biases (--wandb) needs the package wandb, which is not installed: "
                "pip install -e '.[wandb]', or leave --wandb out (results are in the run table all the same)"
            ) from error
        self._wandb: Any = wandb
        self._project, self._mode, self._folder = project, mode, folder
        if (mode or wandb.setup().settings.mode) == "online":
            self._quoting(wandb.login)

    def start(self, config: BenchConfig, group: str | None, name: str | None) -> WandbRun:
        """Open a W&B run with the config, the machine and the versions. Raises ConfigError with W&B's words."""
        run = self._quoting(
            self._wandb.init,
            project=self._project or self._wandb.setup().settings.project or PROJECT,
            group=group,
            name=name or config.label,
            config={**config.model_dump(mode="json"), "environment": describe()},
            mode=self._mode,
            dir=None if self._folder is None else str(self._folder),
            reinit="create_new",  # runs that take turns are open at the same time
            settings=self._wandb.Settings(console="off"),  # stdout is for our results
        )
        return WandbRun(run)

    def _quoting(self, call: Callable[..., Any], **options: Any) -> Any:
        try:
            return call(**options)
        except self._wandb.Error as error:
            raise ConfigError(
                f"Weights & Biases did not start ({error}): log in with `wandb login`, or set WANDB_MODE=offline"
            ) from error


class WandbRun:
    """A W&B run: `live/...` over seconds, `repeat/...` over repeats, and all figures in its summary at the end."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._start_s = time.monotonic()
        self._last_row_s = -LIVE_ROW_S
        for part, axis in (("live", "seconds"), ("repeat", "index")):
            run.define_metric(f"{part}/{axis}")
            run.define_metric(f"{part}/*", step_metric=f"{part}/{axis}", summary="none")

    def live(self, state: LiveState) -> None:
        """A row of what the bar shows, every two seconds at most."""
        seconds = time.monotonic() - self._start_s
        if seconds - self._last_row_s >= LIVE_ROW_S:
            self._last_row_s = seconds
            self._run.log(live_row(state, seconds))

    def repeat(self, dataset: str, index: int, measured: RepeatResult) -> None:
        """A row of the repeat's figures."""
        self._run.log(repeat_row(dataset, index, measured))

    def result(self, result: BenchResult) -> None:
        """One value a figure into the run's summary, and what is known of the surroundings by now."""
        self._run.config.update({"environment": result.environment}, allow_val_change=True)
        self._run.summary.update(summary(result))

    def finish(self, ending: Ending, error: str | None = None) -> None:
        """Close the run; `ending` and `error` stay in its summary, since W&B itself tells only failed from finished."""
        self._run.summary.update({"ending": ending} if error is None else {"ending": ending, "error": error})
        self._run.finish(exit_code=_EXIT_CODES[ending])


def live_row(state: LiveState, seconds: float) -> dict[str, float]:
    """What the progress bar shows at one moment, by name."""
    row = {
        "live/seconds": seconds,
        f"live/{state.dataset}/repeat": state.repeat,
        f"live/{state.dataset}/tokens": state.num_tokens,
        f"live/{state.dataset}/decode_tokens_per_second": state.tokens_per_second,
        f"live/{state.dataset}/acceptance_rate": state.acceptance_rate,
        f"live/{state.dataset}/cache_hit_rate": state.cache_hit_rate,
    }
    return {name: value for name, value in row.items() if value is not None}


def repeat_row(dataset: str, index: int, measured: RepeatResult) -> dict[str, float]:
    """A repeat's figures by name, for a chart of drift."""
    figures = {name: estimate.mean for name, estimate in estimates([measured], num_gpus=0).items()}
    row = {"wall_s": measured.wall_s, **figures}
    return {"repeat/index": index} | {f"repeat/{dataset}/{name}": value for name, value in row.items()}


def summary(result: BenchResult) -> dict[str, float | bool]:
    """A result as named numbers: `gsm8k/decode_tokens_per_second`, its interval `.../low` and `.../high`, then
    `.../quality/accuracy` and `.../peers/<peer>/tokens_per_second`."""
    found: dict[str, float | bool | None] = {"exact": result.exact}
    for name, dataset in result.datasets.items():
        for figure, estimate in dataset.estimates.items():
            found[f"{name}/{figure}"] = estimate.mean
            found[f"{name}/{figure}/low"] = estimate.low
            found[f"{name}/{figure}/high"] = estimate.high
    for name, quality in result.quality.items():
        found |= {f"{name}/quality/{key}": quality[key] for key in ("accuracy", "num_scored", "num_passed")}
    for name, peers in result.peers.items():
        for peer, measured in peers.items():
            kept = ("tokens_per_second", "own_tokens_per_second", "own_speedup", "num_same")
            found |= {f"{name}/peers/{peer}/{key}": measured[key] for key in kept}
    return {name: value for name, value in found.items() if value is not None}
