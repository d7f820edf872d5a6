"""Carry out a plan of `ssd-lab bench`: measure, print while it goes, keep the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import typer

from ssd_lab.bench.config import EXAMPLE, BenchConfig, cell_key
from ssd_lab.bench.live import LiveState
from ssd_lab.bench.measure import RepeatDone, run_in_turns
from ssd_lab.bench.plan import Plan, PlannedRun, check, make_plan
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.session import Session
from ssd_lab.bench.store import RunTable
from ssd_lab.bench.sweep import CellOutcome, Follow, run_sweep
from ssd_lab.bench.trackers import Tracking, WandbTracker
from ssd_lab.cli.bench_tables import result_tables, side_by_side
from ssd_lab.cli.interrupts import INTERRUPTED
from ssd_lab.cli.output import (
    FAILED,
    console,
    print_json,
    print_outputs,
    say_interrupted,
    show_progress,
)
from ssd_lab.errors import ConfigError
from ssd_lab.results import RunResult
from ssd_lab.settings import settings
from ssd_lab.trace import round_line


def measure(arguments: Sequence[str]) -> None:
    """Measure what the flags ask for. Raises what is wrong before anything runs."""
    plan = make_plan(arguments, settings())
    check(plan)
    table = RunTable(plan.flags.table)
    if plan.flags.sweep is not None:
        try:
            _sweep(plan, table)
        except KeyboardInterrupt:
            kept = sum(table.by_cell(cell_key(run.config)) is not None for run in plan.runs)
            say_interrupted(f"interrupted: {kept} of {len(plan.runs)} cells are in {table.path}", goes_on=True)
            raise typer.Exit(INTERRUPTED) from None
        return
    shown: list[dict[str, Any]] = []
    told: list[tuple[str, BenchResult]] = []
    stopped = False
    try:
        with Tracking(_tracker(plan)) as tracking:
            for number, run, result in _measured(plan, tracking):
                run_id = _stored(plan, table, run, result)
                tracking.end(number, result)
                told.append((run.name or str(run_id), result))
                shown.append({"id": run_id, "name": run.name, "group": run.group, **result.as_dict()})
                if not plan.flags.json_:
                    console().print(result_tables(result, f"run {run_id} of {table.path}", run.name))
    except KeyboardInterrupt:
        if not shown:
            raise
        stopped = True
    if len(told) > 1 and not plan.flags.json_:
        console().print(side_by_side(told))
    if plan.flags.json_:
        print_json(shown[0] if plan.flags.runs is None else shown)
    if stopped:
        say_interrupted(f"interrupted: {len(shown)} of {len(plan.runs)} runs are measured, and in {table.path}")
        raise typer.Exit(INTERRUPTED)


def _stored(plan: Plan, table: RunTable, run: PlannedRun, result: BenchResult) -> int:
    """Its id in the table. What was measured is not lost with its place: where it cannot be stored, it is shown."""
    try:
        return table.add(result, group=run.group, name=run.name)
    except ConfigError:
        console(stderr=plan.flags.json_).print(result_tables(result, f"not stored in {table.path}"))
        raise


def _measured(plan: Plan, tracking: Tracking) -> Iterator[tuple[int, PlannedRun, BenchResult]]:
    """Each run with its number and its result as soon as it has one, so that a later one's failure loses nothing."""
    watch, numbered = _Watch(plan), list(enumerate(plan.runs))
    for together in [numbered] if plan.flags.in_turns else [[each] for each in numbered]:
        for number, run in together:
            tracking.begin(number, run.config, run.group, run.name)
        first = together[0][0]

        def on_live(state: LiveState, first: int = first) -> None:
            tracking.live(first + state.place, state)

        def on_repeat(done: RepeatDone, first: int = first) -> None:
            watch.saw(done)
            tracking.repeat(first + done.place, done.dataset, done.index, done.measured)

        results = run_in_turns(
            [run.config for _, run in together],
            progress=show_progress(),
            on_live=on_live if tracking.active else None,
            on_repeat=on_repeat,
        )
        yield from ((number, run, result) for (number, run), result in zip(together, results, strict=True))


def _sweep(plan: Plan, table: RunTable) -> None:
    """Run the cells that the table lacks; failed ones are told at the end and make the exit code that of an error."""
    failed: list[str] = []
    runs = {cell_key(run.config): run for run in plan.runs}
    here: set[str] = set()  # measured now, not found in the table
    followed: set[str] = set()  # cells that run here; those of Ray's workers are told to a tracker when they are over
    with Tracking(_tracker(plan)) as tracking:

        def begin(config: BenchConfig) -> Follow:
            cell = cell_key(config)
            followed.add(cell)
            tracking.begin(cell, config, runs[cell].group, runs[cell].name)
            if not tracking.active:
                return Follow()
            return Follow(
                on_live=lambda state: tracking.live(cell, state),
                on_repeat=lambda done: tracking.repeat(cell, done.dataset, done.index, done.measured),
            )

        def end(outcome: CellOutcome) -> None:
            cell, result = cell_key(outcome.config), outcome.result
            here.add(cell)
            if result is None:
                failed.append(f"{outcome.config.label}: {outcome.error}")
            if cell not in followed:
                begin(outcome.config)
                for name, dataset in result.datasets.items() if result is not None else ():
                    for index, measured in enumerate(dataset.repeats):
                        tracking.repeat(cell, name, index, measured)
            tracking.end(cell, result, outcome.error)

        results = run_sweep(
            [run.config for run in plan.runs],
            table,
            workers=plan.flags.workers,
            group=plan.flags.group,
            names=[run.name for run in plan.runs],
            progress=show_progress(),
            on_start=begin,
            on_cell=end,
        )
    if plan.flags.json_:
        print_json([result.as_dict() for result in results])
    else:
        for result in results:
            row = next(row for row in reversed(table.list()) if row.cell == cell_key(result.config))
            before = "" if row.cell in here else f", measured before ({row.time[:16].replace('T', ' ')})"
            console().print(result_tables(result, f"run {row.run_id} of {table.path}{before}", row.name))
    for line in failed:
        console(stderr=True).print(f"failed: {line}", markup=False, soft_wrap=True)
    if failed:
        raise typer.Exit(FAILED)


class _Watch:
    """What --example, --verbose and --debug show of each repeat."""

    def __init__(self, plan: Plan) -> None:
        self._flags = plan.flags
        self._folder = plan.flags.table.with_name(f"{plan.flags.table.stem}-traces")

    def saw(self, done: RepeatDone) -> None:
        """A repeat is over."""
        session, run = done.session, done.run
        inputs = session.inputs[done.dataset]
        if done.dataset == EXAMPLE and done.index == 0 and not self._flags.json_:
            print_outputs(
                [replace(output, prompt=each.prompt.text) for output, each in zip(run.outputs, inputs, strict=True)]
            )
        if self._flags.verbose:
            self._print_rounds(session, run)
        if self._flags.debug:
            self._folder.mkdir(parents=True, exist_ok=True)
            time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
            cell = cell_key(session.config)[:8]
            name = f"{time}-{session.config.strategy}-{done.dataset}-{done.index}-{cell}.jsonl.gz"
            run.trace.save(self._folder / name)
            console(stderr=True).print(f"rounds saved in {self._folder / name}", soft_wrap=True, markup=False)

    def _print_rounds(self, session: Session, run: RunResult) -> None:
        tokenizer = session.llm.target.tokenizer
        decode = str if tokenizer is None else tokenizer.decode
        out = console(stderr=True)
        for each in run.trace.rounds:
            for row in each.sequences:
                line = f"request {row.request_id}, {round_line(each.index, row, decode)}"
                out.print(line, markup=False, soft_wrap=True)


def _tracker(plan: Plan) -> WandbTracker | None:
    return WandbTracker() if plan.flags.wandb else None
