"""What a sweep's grid means: combinations or changes, the config's names or the reference's, slips refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.grid import expand, read_grid
from ssd_lab.errors import ConfigError

BASE = BenchConfig(strategy="sync_chain", strategy_fields={"k": 6}, target="bundled")


def test_a_grid_is_every_combination_and_its_last_field_changes_fastest():
    cells = expand(BASE, {"batch": [1, 4], "strategy_fields.k": [2, 3, 4]})
    assert [(cell.batch, cell.strategy_fields["k"]) for cell in cells] == [
        (1, 2), (1, 3), (1, 4), (4, 2), (4, 3), (4, 4),
    ]  # fmt: skip


def test_the_references_list_of_changes_keeps_everything_else():
    cells = expand(BASE, json.loads('[{"temp": 0.0, "b": 1}, {"temp": 0.7, "b": 8}, {"temp": 1.0}]'))
    assert [(cell.temperature, cell.batch) for cell in cells] == [(0.0, 1), (0.7, 8), (1.0, 1)]
    assert all(cell.strategy_fields == {"k": 6} for cell in cells)


def test_dots_reach_into_the_strategys_own_fields():
    base = BenchConfig(strategy="async_tree", strategy_fields={"fan_out": {"kind": "geometric", "ratio": 0.5}})
    cells = expand(base, {"strategy_fields.fan_out.ratio": [0.5, 0.8]})
    assert [cell.strategy_fields["fan_out"] for cell in cells] == [
        {"kind": "geometric", "ratio": 0.5}, {"kind": "geometric", "ratio": 0.8},
    ]  # fmt: skip
    assert base.strategy_fields == {"fan_out": {"kind": "geometric", "ratio": 0.5}}


def test_a_knob_goes_to_the_strategies_that_have_it_and_equal_cells_are_one():
    cells = expand(BASE, {"strategy": ["autoregressive", "sync_chain"], "k": [2, 4]})
    assert [(cell.strategy, cell.strategy_fields) for cell in cells] == [
        ("autoregressive", {}), ("sync_chain", {"k": 2}), ("sync_chain", {"k": 4}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({}, "empty"),
        ([], "empty"),
        ({"batch": 4}, r"batch is 4: give a list"),
        ({"strategy": "sync_chain"}, r"give a list of its values"),
        ({"batch": []}, r"batch is \[\]"),
        (
            {"batches": [1]},
            r"'batches' is no field: did you mean 'batch'\? .*fields are strategy, .*short .* temp, .*\bk\b",
        ),
        ({"batch": [1, -1]}, r"batch=-1: Input should be greater"),
        ({"batch.size": [1]}, r"reaches into batch, which is 1"),
        ({"strategy_fields.kk": [1]}, r"strategy_fields.kk is a knob of none .* \(sync_chain\), which have: .*\bk\b"),
        ([{"temp": 0}, 3], r"change 1 of the sweep is 3"),
    ],
)
def test_slips_are_told_before_anything_runs(grid: object, says: str):
    with pytest.raises(ConfigError, match=says):
        expand(BASE, grid)


def test_a_grid_is_read_from_json_or_from_a_file_of_it(tmp_path: Path):
    file = tmp_path / "sweep.json"
    file.write_text('{"batch": [1, 2]}')
    assert read_grid('[{"temp": 1}]') == [{"temp": 1}]
    assert read_grid(str(file)) == {"batch": [1, 2]}
    for text, says in (("nowhere.json", "neither"), ("{batch}", "is not JSON"), ("[", "is not JSON")):
        with pytest.raises(ConfigError, match=says):
            read_grid(text)
