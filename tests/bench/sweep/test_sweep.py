"""A sweep runs what its table lacks, records what failed, and is the same sweep however often it is killed."""

from __future__ import annotations

import multiprocessing
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssd_lab.bench import cell, sweep
from ssd_lab.bench.config import BenchConfig, cell_key
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.store import RunTable
from ssd_lab.bench.sweep import CellOutcome, Failures, expand, run_sweep
from ssd_lab.errors import ConfigError

Cheap = Callable[..., BenchConfig]
TRIES = 6


def facts(table: RunTable) -> dict[str, Any]:
    """All of a table that does not depend on the clock: cells, groups, names, texts, counts of every request."""
    rows = table.list()
    cells = [row.cell for row in rows]
    assert len(cells) == len(set(cells)), "a cell was measured twice"
    return {row.cell: (row.group, row.name, row.config, _deterministic(table.get(row.run_id))) for row in rows}


def _deterministic(result: BenchResult) -> Any:
    return [
        (name, request.prompt_id, request.digest, request.num_output_tokens, request.accepted, request.tested)
        for name, dataset in result.datasets.items()
        for repeat in dataset.repeats
        for request in repeat.requests
    ]


def counting(ran: list[BenchConfig]) -> Callable[[list[BenchConfig]], Any]:
    """The local backend, which notes what it is asked to run."""

    def run(configs: list[BenchConfig]) -> Any:
        for config in configs:
            ran.append(config)
            yield sweep.run_cell(config)

    return run


def test_a_sweep_measures_each_cell_once_and_stores_it(tmp_path: Path, cheap: Cheap):
    table = RunTable(tmp_path / "runs.sqlite")
    cells = expand(cheap(), {"k": [1, 2]})
    results = run_sweep([*cells, cells[0]], table, group="lookahead", names=["one", "two", "one"])
    assert [result.config for result in results] == cells
    assert [(row.group, row.name, row.cell) for row in table.list()] == [
        ("lookahead", name, cell_key(cell)) for name, cell in zip(("one", "two"), cells, strict=True)
    ]
    assert results[0].digests == results[1].digests  # speculation changes no text


def test_what_the_table_has_is_not_run_again(tmp_path: Path, cheap: Cheap):
    table, ran = RunTable(tmp_path / "runs.sqlite"), []
    first, second = expand(cheap(), {"k": [1, 2]})
    run_sweep([first], table)
    results = run_sweep([first, second], table, workers=counting(ran))
    assert ran == [second]
    assert [result.config for result in results] == [first, second]


def test_a_cell_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path, cheap: Cheap):
    table, seen = RunTable(tmp_path / "runs.sqlite"), []
    cells = [cheap(), cheap(output_len=60), cheap(target=str(tmp_path / "nothing")), cheap(seed=1)]
    results = run_sweep(cells, table, group="mixed", on_cell=seen.append)
    assert [result.config for result in results] == [cells[0], cells[3]]
    assert [outcome.error is None for outcome in seen] == [True, False, False, True]
    failed = Failures(table).list("mixed")
    assert [failure.config for failure in failed] == cells[1:3]
    assert failed[0].error.startswith("ConfigError: prompts of up to 16 tokens and 60 tokens of output do not fit")
    assert failed[1].error.startswith("ModelLoadError: ")


def test_a_failed_cell_is_tried_again_and_its_error_forgotten(tmp_path: Path, cheap: Cheap):
    table, config = RunTable(tmp_path / "runs.sqlite"), cheap()

    def fails(configs: list[BenchConfig]) -> Any:
        return [CellOutcome(each, error="OutOfMemoryError: too much") for each in configs]

    assert run_sweep([config], table, workers=fails) == []
    assert run_sweep([config], table, workers=fails) == []
    assert [failure.error for failure in Failures(table).list()] == ["OutOfMemoryError: too much"]
    assert len(run_sweep([config], table)) == 1
    assert Failures(table).list() == []


def test_any_exception_of_a_cell_is_its_own_but_ctrl_c_ends_the_sweep(
    tmp_path: Path, cheap: Cheap, monkeypatch: pytest.MonkeyPatch
):
    def raises(error: BaseException) -> Callable[..., BenchResult]:
        def run(config: BenchConfig, **_: object) -> BenchResult:
            raise error

        return run

    table = RunTable(tmp_path / "runs.sqlite")
    monkeypatch.setattr(cell, "run_benchmark", raises(RuntimeError("the\ndevice is gone")))
    assert run_sweep([cheap()], table) == []
    assert Failures(table).list()[0].error == "RuntimeError: the device is gone"
    monkeypatch.setattr(cell, "run_benchmark", raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run_sweep([cheap()], table)


def test_wrong_workers_and_names_are_refused(tmp_path: Path, cheap: Cheap):
    table = RunTable(tmp_path / "runs.sqlite")
    with pytest.raises(ConfigError, match="'dask' are not known: local and ray"):
        run_sweep([cheap()], table, workers="dask")
    with pytest.raises(ConfigError, match="2 names were given for 1 cells"):
        run_sweep([cheap()], table, names=["a", "b"])


@pytest.mark.full
@pytest.mark.timeout(900)
def test_killing_a_sweep_at_any_moment_and_resuming_gives_the_table_of_an_unbroken_one(tmp_path: Path, cheap: Cheap):
    """SIGKILL of a process at 6 random moments, from before its first cell until after its last."""
    base = cheap(num_sequences=1, output_len=4, bitwise=False)
    cells = [*expand(base, {"strategy": ["autoregressive", "sync_chain"], "k": [1, 3]}), cheap(output_len=60)]
    names = [f"cell {number}" for number in range(len(cells))]
    whole = RunTable(tmp_path / "whole.sqlite")
    _run_and_kill(tmp_path / "warm-up.sqlite", cells, names, after_s=None)  # the first one waits for the fork server
    start_s = time.monotonic()
    _run_and_kill(whole.path, cells, names, after_s=None)
    unbroken_s = time.monotonic() - start_s
    wanted, wanted_failures = facts(whole), [failure.cell for failure in Failures(whole).list()]
    assert len(wanted) == 3 and len(wanted_failures) == 1

    draw, finished_at_kill = random.Random(0), []
    for attempt in range(TRIES):
        table = RunTable(tmp_path / f"{attempt}.sqlite")
        _run_and_kill(table.path, cells, names, after_s=1.1 * unbroken_s * (attempt + draw.random()) / TRIES)
        before = {row.run_id: row.time for row in table.list()}
        finished_at_kill.append(len(before))
        ran: list[BenchConfig] = []
        run_sweep(cells, table, group="killed", names=names, workers=counting(ran))
        assert facts(table) == wanted
        assert [failure.cell for failure in Failures(table).list()] == wanted_failures
        assert before.items() <= {row.run_id: row.time for row in table.list()}.items()  # kept, not measured again
        assert len(ran) == len(cells) - len(before)
        with sqlite3.connect(table.path) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()
    assert len(set(finished_at_kill)) >= 3, "the kills all came at the same moment"


def _run_and_kill(path: Path, cells: list[BenchConfig], names: list[str], after_s: float | None) -> None:
    context = multiprocessing.get_context("forkserver")  # it imports torch once for all tries
    context.set_forkserver_preload(["ssd_lab.bench.sweep"])
    fields = [cell.model_dump() for cell in cells]
    process = context.Process(target=_sweep_process, args=(path, fields, names))
    process.start()
    if after_s is not None:
        process.join(after_s)
        process.kill()
    process.join(60)
    assert process.exitcode in ((0,) if after_s is None else (0, -signal.SIGKILL))
    process.close()


def _sweep_process(path: Path, fields: list[dict[str, Any]], names: list[str]) -> None:
    run_sweep([BenchConfig.model_validate(each) for each in fields], RunTable(path), group="killed", names=names)
