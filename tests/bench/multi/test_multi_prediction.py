"""Predicted rates of rounds at a placement, from results that are small enough to price by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trace_samples import round_record, sequence_round

from ssd_lab.bench.multi.cell import Cell, Kept
from ssd_lab.bench.multi.messages_cell import BY_STREAM, IN_MEMORY, MessagesCell
from ssd_lab.bench.multi.pairs import Pair
from ssd_lab.bench.multi.phases_cell import PhasesCell
from ssd_lab.bench.multi.placements import Place
from ssd_lab.bench.multi.prediction import Predicted, predict
from ssd_lab.bench.multi.reading import BatchOfRounds, Measured
from ssd_lab.bench.multi.rounds_cell import RoundsCell
from ssd_lab.bench.multi.slice_cell import SliceCell
from ssd_lab.bench.multi.sums_cell import AS_THE_ENGINE, SumsCell
from ssd_lab.profile.measure import Sizes
from ssd_lab.simulate import HardwareProfile, RankSlice, TableTime
from ssd_lab.trace import Trace

PAIR = Pair.read("bundled")
SUMS = 2 * PAIR.shape.num_layers
SIZES = Sizes(k=2, fan_out=(1, 1, 1), batches=(1,), contexts=(32,), rows=(1,))
BESIDE, SHARED = Place("target=cuda:0 draft=cuda:1", 1, 1), Place("target=cuda:0,cuda:1", 2, 0)
PROFILE = HardwareProfile(
    name="m", source="s", target_device="cuda:0", draft_device="cuda:0", verify_s=5.0, draft_step_s=1.0,
    draft_tree_step_s=1.5, autoregressive_step_s=4.0, fallback_host_s=TableTime.of({1: 0.75}),
)  # fmt: skip
PART = RankSlice(ranks=2, sums=SUMS, verify_s=3.25, autoregressive_step_s=3.0)
US = 1e6


def measured(folder: Path, *known: tuple[Cell, dict[str, Any]], profile: HardwareProfile = PROFILE) -> Measured:
    """known: cells beside the phases, and what they found."""
    phases = (PhasesCell(PAIR, "cuda:0", SIZES), {"profile": profile.model_dump(mode="json")})
    results = {cell.key: {"status": "done", "result": result} for cell, result in (phases, *known)}
    return Measured([cell for cell, _ in (phases, *known)], results, folder)


def link(transport: str, seconds: float) -> tuple[Cell, dict[str, Any]]:
    payloads = {name: {"median_us": seconds * US} for name in ("1 row, greedy", "16 rows, greedy")}
    return MessagesCell(transport, "cuda:0", "cuda:1", 10), {"payloads": payloads}


def sums(seconds: float) -> tuple[Cell, dict[str, Any]]:
    hidden = PAIR.shape.hidden_size
    size = {"rows": 1, "hidden": hidden, "us": 9e9, "in_graph_us": seconds * US}
    return SumsCell(("cuda:0", "cuda:1"), AS_THE_ENGINE, (hidden,), (1,), 10), {"sizes": [size]}


def part() -> tuple[Cell, dict[str, Any]]:
    return SliceCell(PAIR, "cuda:0", 2, SIZES), {"slice": PART.model_dump(mode="json")}


def rounds_of(folder: Path, place: Place, strategy: str) -> BatchOfRounds:
    """Two rounds of one sequence, 2 tokens each: a miss and a hit with k = 2, or no draft at all."""
    k, origins = (2, ("jit", "hit")) if strategy == "async_tree" else (0, ("none", "none"))
    own = [
        round_record(i, i, i + 1.0, sequence_round(min(k, 1), k=k, origin=each, cache_hit=each == "hit" if k else None))
        for i, each in enumerate(origins)
    ]
    Trace({"strategy": {"name": strategy, "k": k, "f": 1}}, rounds=own).save(folder / "t.jsonl.gz")
    cell = RoundsCell(PAIR, place, strategy, {}, (1,), 1, 8)
    return BatchOfRounds(cell, {"batch": 1, "traces": ["t.jsonl.gz"]}, 0)


def predicted(folder: Path, place: Place, strategy: str, *known: Any, **more: Any) -> Predicted:
    return predict(measured(folder, *known, **more), rounds_of(folder, place, strategy))


def test_a_draft_on_another_gpu_is_reached_by_stream_and_a_miss_waits_for_the_host(tmp_path: Path) -> None:
    found = predicted(tmp_path, BESIDE, "async_tree", link(IN_MEMORY, 100.0), link(BY_STREAM, 0.25))
    miss_s, hit_s = 0.25 + 0.75 + 2 * 1.0 + 5.0, 0.25 + 5.0  # each tree takes 2 x 1.5
    assert found.predicted == pytest.approx(4 / (miss_s + hit_s))
    assert found.notes == ()


def test_what_older_results_lack_is_assumed_and_said(tmp_path: Path) -> None:
    old = PROFILE.model_copy(update={"fallback_host_s": None})
    found = predicted(tmp_path, BESIDE, "async_tree", link(IN_MEMORY, 100.0), profile=old)
    assert found.predicted == pytest.approx(4 / (2 * 1.0 + 2 * 5.0), rel=1e-4)
    assert ["misses" in note for note in found.notes] == [True, False] and "38 us" in found.notes[1]


def test_several_drafts_are_processes_whose_link_must_be_known(tmp_path: Path) -> None:
    two = Place("target=cuda:0 draft=cuda:1,cuda:1", 1, 2)
    assert predicted(tmp_path, two, "async_tree", link(BY_STREAM, 0.25)).why_not == "the link was not measured"
    found = predicted(tmp_path, two, "async_tree", link(BY_STREAM, 0.25), link(IN_MEMORY, 1.0))
    # processes prepare no rounds, so that the one that hits waits for the host too
    assert found.predicted == pytest.approx(4 / (1.0 + 0.75 + 2.0 + 5.0 + 1.0 + 0.75 + 5.0))


@pytest.mark.parametrize(
    ("text", "drafts", "devices", "by_stream"),
    [
        ("target=cuda:0", 0, 0, False),
        ("target=cuda:0 draft=cuda:1", 1, 1, True),
        ("target=cuda:0 draft=cuda:1,cuda:1", 2, 1, False),
        ("target=cuda:0 draft=cuda:1,cuda:2", 2, 2, False),
        ("target=cpu draft=cpu,cpu", 2, 2, False),
    ],
)
def test_where_drafts_work(text: str, drafts: int, devices: int, by_stream: bool) -> None:
    where = Place(text, 1, drafts)
    assert (where.num_draft_devices, where.is_by_stream) == (devices, by_stream)


def test_a_target_over_two_is_priced_by_the_part_of_one_and_the_sums(tmp_path: Path) -> None:
    found = predicted(tmp_path, SHARED, "autoregressive", sums(0.125), part())
    assert found.predicted == pytest.approx(1 / (3.0 + SUMS * 0.125))
    assert found.notes == ()


def test_without_that_part_by_half_of_the_whole(tmp_path: Path) -> None:
    found = predicted(tmp_path, SHARED, "autoregressive", sums(0.125))
    assert found.predicted == pytest.approx(1 / (2.0 + SUMS * 0.125))
    assert any("one of 2 ranks takes 1/2" in note for note in found.notes)
    assert predicted(tmp_path, SHARED, "autoregressive", part()).notes == (
        "assumed, not measured: sums over the ranks as between two H200",
    )


def test_a_draft_on_a_gpu_of_the_shared_target_takes_turns_with_it(tmp_path: Path) -> None:
    found = predicted(tmp_path, SHARED, "async_tree", sums(0.125), part())
    verify_s, tree_s = 3.25 + SUMS * 0.125, 2 * 1.5
    assert found.predicted == pytest.approx(4 / (0.75 + 2 * 1.0 + 2 * (verify_s + tree_s)))


def test_a_target_that_no_device_holds_is_priced_by_a_part_alone(tmp_path: Path, tiny_pair: Any) -> None:
    pair = Pair("tiny", tiny_pair.target, tiny_pair.draft)
    sizes = Sizes(k=2, fan_out=(2, 1, 1), batches=(1,), contexts=(32,), rows=(1, 3), repeats=1)
    result = PhasesCell(pair, "cpu", sizes, "float32", ranks=2).run(Kept(tmp_path))
    (found,) = HardwareProfile.model_validate(result["profile"]).rank_slices
    assert (found.ranks, found.sums, result["rounds"]) == (2, 2 * pair.shape.num_layers, [])
    # as a profile of the bundled pair, whose target is now one that needs two
    cell = PhasesCell(PAIR, "cuda:0", SIZES)
    own = PROFILE.model_copy(update={"rank_slices": (PART,)}).model_dump(mode="json")
    folder = tmp_path / "rounds"
    folder.mkdir()
    cells = [cell, sums(0.125)[0]]
    results = {cell.key: {"status": "done", "result": {"profile": own, "ranks": 2}}}
    results[cells[1].key] = {"status": "done", "result": sums(0.125)[1]}
    one = predict(Measured(cells, results, folder), rounds_of(folder, SHARED, "autoregressive"))
    assert one.predicted == pytest.approx(1 / (3.0 + SUMS * 0.125)) and one.notes == ()
    four = Place("target=cuda:0,cuda:1,cuda:2,cuda:3", 4, 0)
    other = predict(Measured(cells, results, folder), rounds_of(folder, four, "autoregressive"))
    assert other.why_not == "the part of one of 4 ranks was not measured"
