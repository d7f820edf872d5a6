"""Results to an experiment tracker, if one is asked for; nothing here is needed to measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.result import BenchResult
from ssd_lab.errors import ConfigError

PROJECT = "ssd_lab"  # where the tracker's own settings name none


class Tracker(Protocol):
    """Takes one run after another: start, log, finish."""

    def start(self, config: BenchConfig, group: str | None, name: str | None) -> None:
        """A run begins; name: None takes the config's label."""

    def log(self, result: BenchResult) -> None:
        """What it measured."""

    def finish(self) -> None:
        """The run is over; finishing twice is fine."""


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
                "pip install 'ssd_lab[wandb]', or leave --wandb out (results are in the run table all the same)"
            ) from error
        self._wandb: Any = wandb
        self._project, self._mode, self._folder = project, mode, folder
        self._run: Any = None
        if (mode or wandb.setup().settings.mode) == "online":
            self._quoting(wandb.login)

    def start(self, config: BenchConfig, group: str | None, name: str | None) -> None:
        """Open a W&B run with the config. Raises ConfigError with W&B's words if it cannot."""
        self.finish()
        self._run = self._quoting(
            self._wandb.init,
            project=self._project or self._wandb.setup().settings.project or PROJECT,
            group=group,
            name=name or config.label,
            config=config.model_dump(mode="json"),
            mode=self._mode,
            dir=None if self._folder is None else str(self._folder),
            settings=self._wandb.Settings(console="off"),  # stdout is for our results
        )

    def log(self, result: BenchResult) -> None:
        """One value a figure into the run's summary, with the machine and the versions in its config."""
        if self._run is None:
            raise ConfigError("nothing can be logged before a run is started: call start(config, group, name)")
        self._run.config.update({"environment": result.environment})
        for values in history(result):
            self._run.log(values)
        self._run.summary.update(summary(result))

    def finish(self) -> None:
        """Close the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _quoting(self, call: Callable[..., Any], **options: Any) -> Any:
        try:
            return call(**options)
        except self._wandb.Error as error:
            raise ConfigError(
                f"Weights & Biases did not start ({error}): log in with `wandb login`, or set WANDB_MODE=offline"
            ) from error


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


def history(result: BenchResult) -> list[dict[str, float]]:
    """One row a repeat, for a chart of drift: wall time and tokens per second of each data set."""
    longest = max((len(dataset.repeats) for dataset in result.datasets.values()), default=0)
    rows: list[dict[str, float]] = [{"repeat": index} for index in range(longest)]
    for name, dataset in result.datasets.items():
        for row, repeat in zip(rows, dataset.repeats, strict=False):
            row[f"{name}/repeat/wall_s"] = repeat.wall_s
            row[f"{name}/repeat/tokens_per_second"] = repeat.num_output_tokens / repeat.wall_s
    return rows
