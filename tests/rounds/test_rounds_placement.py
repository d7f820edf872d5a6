"""Rows on the device: what changes from round to round goes there, and nothing else."""

from __future__ import annotations

import pytest
import torch

from ssd_lab.rounds import placement
from ssd_lab.rounds.placement import Placement
from ssd_lab.rounds.rows import KnownState, RowBatch

GREEDY, SAMPLED = (0.0, 0, 1.0, 0.0), (0.7, 5, 0.9, 0.0)


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many buffers went to the device."""
    counted: list[int] = []
    send = placement._Buffer.send
    monkeypatch.setattr(placement._Buffer, "send", lambda *given: counted.append(1) or send(*given))
    return counted


def batch(*rows: tuple[int, tuple[float, int, float, float]]) -> RowBatch:
    """Rows of some requests, whose blocks and seeds are their own."""
    state = KnownState.of(
        lengths=[5 + own for own, _ in rows], previous_tokens=[1] * len(rows), last_tokens=[2 + own for own, _ in rows]
    )
    tables = [[1 + 2 * own, 2 + 2 * own] for own, _ in rows]
    return RowBatch(state, block_tables=tables, sampling=[(*setting, 100 + own) for own, setting in rows])


def test_settings_of_greedy_rows_stay_where_others_take_their_places(sends: list[int]) -> None:
    placed = Placement(torch.device("cpu"), max_rows=4, width=2, block_size=16)
    placed.place(batch((0, GREEDY), (1, GREEDY), (2, GREEDY)))
    sends.clear()
    rows, _ = placed.place(batch((1, GREEDY), (2, GREEDY)))
    assert rows.sampling.all_greedy and not rows.sampling.any_filter
    assert rows.lengths.tolist() == [6, 7] and rows.tables.tolist() == [[3, 4], [5, 6]]
    assert len(sends) == 2, "state and tables"
    placed.place(batch((1, GREEDY), (2, GREEDY)))
    assert len(sends) == 3, "state alone"


def test_settings_of_sampled_rows_are_their_own(sends: list[int]) -> None:
    placed = Placement(torch.device("cpu"), max_rows=4, width=2, block_size=16)
    placed.place(batch((0, GREEDY), (1, GREEDY)))
    sends.clear()
    rows, _ = placed.place(batch((0, GREEDY), (1, SAMPLED)))
    assert not rows.sampling.all_greedy and rows.sampling.any_filter
    assert rows.sampling.seeds.tolist() == [100, 101] and rows.sampling.top_k.tolist() == [0, 5]
    rows, _ = placed.place(batch((1, SAMPLED), (0, GREEDY)))
    assert rows.sampling.seeds.tolist() == [101, 100] and rows.sampling.temperature.tolist() == [
        pytest.approx(0.7),
        0.0,
    ]
    rows, _ = placed.place(batch((0, GREEDY), (1, GREEDY)))
    assert rows.sampling.all_greedy and not rows.sampling.any_filter


def test_fewer_rows_than_before_find_their_settings_there(sends: list[int]) -> None:
    placed = Placement(torch.device("cpu"), max_rows=4, width=2, block_size=16)
    three = batch((0, SAMPLED), (1, GREEDY), (2, GREEDY))
    placed.place(three)
    sends.clear()
    rows, _ = placed.place(batch((0, SAMPLED), (1, GREEDY)))
    assert len(sends) == 1 and rows.sampling.seeds.tolist() == [100, 101]
    rows, _ = placed.place(three)
    assert len(sends) == 2 and rows.sampling.seeds.tolist() == [100, 101, 102]
