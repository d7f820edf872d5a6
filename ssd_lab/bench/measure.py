"""Run benchmarks: warm up, repeat, take turns where there are several, and add up what the traces tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ssd_lab.assembly.build import resolve_device
from ssd_lab.bench.config import BUNDLED, BenchConfig
from ssd_lab.bench.figures import repeat_values
from ssd_lab.bench.live import Live, OnLive
from ssd_lab.bench.peers import run_peers
from ssd_lab.bench.quality import Limits, score
from ssd_lab.bench.repeat import RepeatResult
from ssd_lab.bench.result import BenchResult, DatasetResult
from ssd_lab.bench.session import Session
from ssd_lab.common.statistics import student_interval
from ssd_lab.display import environment
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.results import Output, RunResult

DECIDING_FIGURE = "decode_tokens_per_second"  # whose interval `precision` watches


@dataclass(frozen=True)
class RepeatDone:
    """A repeat that is over: its outputs and trace, and what was measured.

    place: of the run among those that take turns; index: of the repeat, from 0.
    """

    place: int
    session: Session
    dataset: str
    index: int
    run: RunResult
    measured: RepeatResult


OnRepeat = Callable[[RepeatDone], None]


def run_benchmark(
    config: BenchConfig, *, progress: bool = False, on_live: OnLive | None = None, on_repeat: OnRepeat | None = None
) -> BenchResult:
    """Measure one configuration; arguments and errors as `run_in_turns`."""
    return run_in_turns([config], progress=progress, on_live=on_live, on_repeat=on_repeat)[0]


def run_in_turns(
    configs: Sequence[BenchConfig],
    *,
    progress: bool = False,
    on_live: OnLive | None = None,
    on_repeat: OnRepeat | None = None,
) -> list[BenchResult]:
    """Measure configurations side by side: repeat by repeat they take turns, so that a drift of the machine hits all.

    All of them are loaded at once; equal models are loaded once. on_live: called a few times a second while requests
    run. on_repeat: called after each repeat of each of them. Raises ConfigError, DatasetError, ModelLoadError or
    PromptError before anything runs if a configuration cannot be had here.
    """
    runs: list[_Run] = []
    with ExitStack() as stack:
        loaded: dict[tuple[str, str, str, bool], LoadedModel] = {}

        def load(source: str, *, dtype: str, device: str, bitwise: bool, progress: bool) -> LoadedModel:
            key = (source, dtype, device, bitwise)
            if key not in loaded:
                loaded[key] = load_model(source, dtype=dtype, device=device, bitwise=bitwise, progress=progress)
            return loaded[key]

        runs = [
            _Run(place, stack.enter_context(Session(config, load, progress=progress)))
            for place, config in enumerate(configs)
        ]
        expected = sum(run.expected_tokens * run.session.config.repeats for run in runs)
        live = stack.enter_context(Live(expected, progress=progress, on_live=on_live))
        for run in runs:
            run.session.warm_up()
        while unfinished := [run for run in runs if run.wants_more]:
            for run in unfinished:
                run.next_repeat(live, on_repeat)
    return [run.result(progress=progress) for run in runs]


class _Run:
    """A session, its place among those that take turns, and what it has measured so far."""

    def __init__(self, place: int, session: Session) -> None:
        self.session = session
        self._place = place
        self._repeats: dict[str, list[RepeatResult]] = {name: [] for name in session.inputs}
        self._outputs: dict[str, list[Output]] = {}
        self._degraded: str | None = None
        self._exact = True

    @property
    def expected_tokens(self) -> int:
        """Tokens of one repeat of every data set."""
        return sum(map(len, self.session.inputs.values())) * self.session.config.output_len

    @property
    def wants_more(self) -> bool:
        """Are there too few repeats, or is an interval still too wide?"""
        config = self.session.config
        done = min(map(len, self._repeats.values()))
        if done < config.repeats:
            return True
        return config.precision is not None and done < config.max_repeats and not self._precise(config.precision)

    def next_repeat(self, live: Live, on_repeat: OnRepeat | None) -> None:
        """Every data set once more."""
        session, config = self.session, self.session.config
        if len(next(iter(self._repeats.values()))) >= config.repeats:
            live.extend(self.expected_tokens)
        for name, repeats in self._repeats.items():
            expected = len(session.inputs[name]) * config.output_len
            live.begin(config.label, name, len(repeats), expected, place=self._place)
            run, measured = session.repeat(name, len(repeats), lambda _, totals: live.step(totals))
            live.end(measured.totals)
            repeats.append(measured)
            self._outputs.setdefault(name, run.outputs)
            self._degraded = run.trace.meta.get("degraded") or self._degraded
            self._exact = self._exact and run.metrics.exact
            if on_repeat is not None:
                on_repeat(RepeatDone(self._place, session, name, len(repeats) - 1, run, measured))

    def result(self, *, progress: bool) -> BenchResult:
        """Everything measured, with peers and quality if they were asked for."""
        session, config = self.session, self.session.config
        where = environment.describe()
        where["run"] = {
            "device": str(resolve_device(config.device)),
            "dtype": str(session.llm.target.dtype).removeprefix("torch."),
            "threads": session.llm.threads,
            "target": environment.model(config.target, session.llm.target.source),
            "draft": None
            if session.llm.draft is None
            else environment.model(config.draft or BUNDLED, session.llm.draft.source),
        }
        datasets = {
            name: DatasetResult(
                name, tuple(repeats), sum(each.was_cut for each in session.inputs[name]), session.num_gpus
            )
            for name, repeats in self._repeats.items()
        }
        return BenchResult(
            config,
            where,
            datasets,
            self._exact,
            peers=self._peers(progress) if config.peers else {},
            quality=self._quality() if config.quality else {},
            notes=tuple(self._notes(datasets)),
        )

    def _peers(self, progress: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, inputs in self.session.inputs.items():
            prompts = [each.prompt for each in inputs]
            results = run_peers(self.session.config, prompts, self._outputs[name], progress=progress)
            found[name] = {peer: result.as_dict() for peer, result in results.items()}
        return found

    def _quality(self) -> dict[str, Any]:
        return {
            name: score(
                name,
                [each.prompt for each in inputs],
                self._outputs[name],
                tokenizer=self.session.llm.target.tokenizer,
                was_cut=[each.was_cut for each in inputs],
                limits=Limits(unguarded="run" if self.session.config.unguarded else "refuse"),
            ).as_dict()
            for name, inputs in self.session.inputs.items()
        }

    def _precise(self, precision: float) -> bool:
        widths = [
            student_interval(repeat_values(repeats, DECIDING_FIGURE)).relative_width
            for repeats in self._repeats.values()
        ]
        return all(width is not None and width <= precision for width in widths)

    def _notes(self, datasets: dict[str, DatasetResult]) -> list[str]:
        config = self.session.config
        notes = [
            f"{dataset.name}: {dataset.num_cut} of {len(self.session.inputs[dataset.name])} prompts were cut to "
            f"{config.input_len} tokens"
            for dataset in datasets.values()
            if dataset.num_cut
        ]
        if self._degraded is not None:
            notes.append(f"the draft was lost and the run went on autoregressively: {self._degraded}")
        if config.max_steps is not None:
            notes.append(f"each repeat was ended after {config.max_steps} engine steps")
        untimed = sum(repeat.totals.untimed_rounds for dataset in datasets.values() for repeat in dataset.repeats)
        if untimed:
            notes.append(f"{untimed} rounds in which graphs were captured or kernels compiled are in no rate")
        if self.session.num_gpus and self.session.llm.strategy.overlaps:
            notes.append("target and draft shared one GPU")
        return notes
