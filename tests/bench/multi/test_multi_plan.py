"""The plan of a report for several numbers of devices."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ssd_lab.bench.multi.cell import PIECES, Cell
from ssd_lab.bench.multi.extent import Extent
from ssd_lab.bench.multi.machine import Machine
from ssd_lab.bench.multi.pairs import Pair
from ssd_lab.bench.multi.phases_cell import PhasesCell
from ssd_lab.bench.multi.placements import checked_places
from ssd_lab.bench.multi.plan import asynchronous, make_plan, too_large
from ssd_lab.bench.multi.reading import BatchOfRounds
from ssd_lab.bench.multi.rounds_cell import RoundsCell
from ssd_lab.bench.multi.slice_cell import SliceCell
from ssd_lab.bench.multi.sums_cell import SumsCell
from ssd_lab.bench.multi.texts import TextCell
from ssd_lab.errors import ConfigError, SsdLabError

H200 = int(0.9 * 150e9)
PAIRS = [Pair.read(text) for text in ("bundled", "llama-8b,llama-1b", "qwen3-32b,qwen3-0.6b", "llama-70b,llama-1b")]


def gpus(count: int, room_bytes: int = H200) -> Machine:
    return Machine(tuple(f"cuda:{index}" for index in range(count)), room_bytes, present=False)


def plan(count: int, pairs: Sequence[Pair] = PAIRS) -> list[Cell]:
    return make_plan(gpus(count), pairs, Extent.usual(count))


def ranks_and_drafts(cells: Sequence[Cell], pair: str, strategy: str = "async_tree") -> set[tuple[int, int]]:
    """Of the rounds of a pair."""
    return {
        (cell.place.ranks, cell.place.drafts)
        for cell in cells
        if isinstance(cell, RoundsCell) and cell.pair.name == pair and cell.strategy == strategy
    }


@pytest.mark.parametrize(
    ("count", "places"),
    [
        (2, {"target=0 draft=1", "target=0 draft=1,1", "target=0,1"}),
        (4, {"target=0 draft=1", "target=0,1 draft=2", "target=0,1 draft=2,3", "target=0,1,2", "target=0,1,2,3"}),
        (5, {"target=0 draft=1", "target=0,1,2,3 draft=4", "target=0,1,2,3", "target=0,1,2,3,4"}),
        (8, {"target=0 draft=1", "target=0,1,2,3 draft=4", "target=0,1,2,3 draft=4,5", "target=0,1,2,3 draft=4,5,6,7",
             "target=0,1,2,3,4,5,6", "target=0,1,2,3,4,5,6,7"}),
    ],
)  # fmt: skip
def test_placements_whose_texts_are_compared(count: int, places: set[str]) -> None:
    found = {place.text.replace("cuda:", ""): place for place in checked_places(gpus(count))}
    assert {*found} == places
    refusable = {text for text, place in found.items() if place.may_be_refused}
    assert refusable == places & {"target=0,1,2", "target=0,1,2,3,4", "target=0,1,2,3,4,5,6"}


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 8, 16])
def test_every_cell_is_there_once_and_correctness_comes_first(count: int) -> None:
    cells = plan(count)
    assert len({cell.key for cell in cells}) == len(cells)
    pieces = [cell.piece for cell in cells]
    assert list(dict.fromkeys(pieces)) == list(PIECES)
    assert pieces == sorted(pieces, key=list(PIECES).index)
    assert all(cell.estimate_s > 0 and cell.key.startswith(cell.piece) for cell in cells)
    ranks = {len(cell.devices) for cell in cells if isinstance(cell, SumsCell)}
    assert ranks == {size for size in (2, 4, 8, 16) if size <= count}


def test_rounds_stand_where_their_models_fit() -> None:
    assert ranks_and_drafts(plan(2), "llama-8b,llama-1b") == {(1, 1), (2, 0), (1, 2)}
    assert ranks_and_drafts(plan(2), "llama-70b,llama-1b") == {(2, 0)}
    assert {(2, 1), (2, 2), (4, 0)} <= ranks_and_drafts(plan(4), "llama-70b,llama-1b")
    assert (4, 1) in ranks_and_drafts(plan(5), "llama-70b,llama-1b")
    assert {(4, 1), (4, 2), (4, 4), (8, 0)} <= ranks_and_drafts(plan(8), "llama-70b,llama-1b")
    assert ranks_and_drafts(plan(8), "llama-70b,llama-1b", "autoregressive") == {(2, 0), (4, 0), (8, 0)}


def test_a_target_that_no_device_holds_is_left_out_and_named() -> None:
    machine = gpus(2, room_bytes=int(40e9))
    assert [pair.name for pair in too_large(machine, PAIRS)] == ["llama-70b,llama-1b"]
    cells = make_plan(machine, PAIRS, Extent.usual(2))
    assert ranks_and_drafts(cells, "llama-70b,llama-1b") == set()
    assert ranks_and_drafts(cells, "qwen3-32b,qwen3-0.6b") == {(2, 0)}
    alone = make_plan(machine, PAIRS[3:], Extent.usual(2))
    assert {cell.pair.name for cell in alone if isinstance(cell, TextCell)} == {"bundled"}


def test_all_strategies_that_draft_are_compared_at_every_placement_that_must_work() -> None:
    texts = [cell for cell in plan(2) if isinstance(cell, TextCell)]
    assert {cell.pair.name for cell in texts} == {"bundled"}
    greedy = [cell for cell in texts if not cell.sampled]
    for place in {cell.place for cell in greedy if not cell.place.may_be_refused}:
        names = {cell.strategy for cell in greedy if cell.place == place}
        assert names >= {"sync_chain", "async_tree", "sync_tree", "prompt_lookup", "suffix_tree", "cascade", "eagle3"}
    assert {cell.extent.batches for cell in greedy} == {(1, 16)}
    assert {cell.extent.prompts for cell in greedy} == {100}


def test_settings_vary_around_the_usual_ones_or_are_crossed() -> None:
    few = asynchronous(Extent.usual(2))
    assert len(few) == len({str(one) for one in few}) == 6 + 3 + 2
    assert {fields["k"] for _, fields in few} == {2, 3, 4, 5, 6, 7}
    assert len(asynchronous(Extent.usual(2, crossed=True))) == 6 * 4 * 3
    assert {fields["k"] for _, fields in asynchronous(Extent.usual(4))} == {4, 5, 6, 7, 8}


def test_devices_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="this measures two or more"):
        Machine.of(["cpu"])
    with pytest.raises(ConfigError, match=r"name GPUs .* or processes"):
        Machine.of(["cpu", "cuda:0"])
    with pytest.raises(ConfigError, match="names a GPU twice"):
        Machine.of(["cuda:1", "cuda:1"])
    for wrong in ("llama-8b", "llama-8b,", "a,b,c"):
        with pytest.raises(SsdLabError, match="give target,draft"):
            Pair.read(wrong)


def test_a_plan_for_gpus_elsewhere_says_what_it_takes_of_them() -> None:
    machine = Machine.of(["cuda:97", "cuda:98"])
    assert not machine.present
    assert machine.ranks_for(int(65e9)) == 1 and machine.ranks_for(int(141e9)) == 2
    assert Machine.of(["cpu", "cpu", "cpu"]).ranks_for(int(1e15)) == 1


@pytest.mark.parametrize(
    ("kind", "round_s", "spans_s", "expected"),
    [
        ("without lookups", 7.0, {"draft: draft": 2.7, "target: verify": 7.0}, 4.3),  # launched ahead, draft and all
        (
            "without lookups",
            7.4,
            {"draft: draft": 2.7, "target: verify": 4.3},
            4.3,
        ),  # launched when the draft was there
        ("without lookups", 4.2, {"target: verify": 4.2}, 4.2),
        ("all hits", 4.5, {"draft: tree": 4.2, "target: verify": 4.4}, 4.4),
    ],
)
def test_a_verification_is_timed_without_the_draft_before_it(
    kind: str, round_s: float, spans_s: dict[str, float], expected: float
) -> None:
    (cell, *_) = (one for one in plan(2) if isinstance(one, RoundsCell))
    one = BatchOfRounds(cell, {"batch": 1, "rounds": {kind: {"round_s": round_s, "spans_s": spans_s}}}, 0)
    assert one.verify_s == pytest.approx(expected)


def test_one_ranks_part_is_timed_for_each_number_of_ranks_that_runs() -> None:
    def profiled(count: int, pair: str) -> list[tuple[str, int]]:
        cells = [cell for cell in plan(count) if isinstance(cell, PhasesCell | SliceCell) and cell.pair.name == pair]
        return [("pair" if isinstance(cell, PhasesCell) else "part", cell.ranks) for cell in cells]

    assert profiled(2, "llama-8b,llama-1b") == [("pair", 1), ("part", 2)]
    assert profiled(8, "llama-8b,llama-1b") == [("pair", 1), ("part", 2), ("part", 4), ("part", 8)]
    assert profiled(2, "llama-70b,llama-1b") == [("pair", 2)], "no device holds all of it"
    assert profiled(4, "llama-70b,llama-1b") == [("pair", 2), ("part", 4)]
