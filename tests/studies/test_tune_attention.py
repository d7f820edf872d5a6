"""The search for attention's cuts: what it chooses, what it prints, what it compiles. Times are made up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from triton.runtime.errors import OutOfResources

from ssd_lab.errors import ConfigError
from ssd_lab.kernels.interface import HeadLayout
from ssd_lab.kernels.triton_ops import attention_tuning
from ssd_lab.kernels.triton_ops.attention_plan import SplitAttention
from ssd_lab.kernels.triton_ops.attention_tuning import AttentionShape, AttentionTuning, SizedTunings
from studies.tune_kernels import attention as tune_attention
from studies.tune_kernels.attention import AttentionBuild, timed, variants
from studies.tune_kernels.attention_choice import choose, measured_entry, table
from studies.tune_kernels.attention_timing import AttentionSize
from studies.tune_kernels.compiling import CompileAhead

HEADS = HeadLayout(32, 8, 128)
PLAIN = AttentionTuning()
GATHERED = AttentionTuning(gathered=True, unroll=16)
FINE = AttentionTuning(split=64)
SIZES = {(batch, context): AttentionSize(HEADS, batch, context) for batch in (1, 4) for context in (512, 8192)}


def times(**us: tuple[float, float, float, float]) -> dict[AttentionSize, dict[AttentionTuning, float]]:
    """By name of a tuning, in the order of SIZES."""
    tunings = {"plain": PLAIN, "gathered": GATHERED, "fine": FINE}
    return {size: {tunings[name]: of[n] for name, of in us.items()} for n, size in enumerate(SIZES.values())}


def everywhere(**by_tiles: AttentionTuning) -> dict[tuple[int, int], AttentionTuning]:
    """At both contexts."""
    return {(int(tiles[1:]), keys): tuning for tiles, tuning in by_tiles.items() for keys in (512, 8192)}


def test_the_fastest_over_all_contexts_is_chosen_by_number_of_tiles() -> None:
    found = times(plain=(6.1, 24, 8, 60), gathered=(6.2, 16, 8.1, 61))
    assert choose(found, {PLAIN, GATHERED}) == everywhere(n8=GATHERED, n32=PLAIN)


def test_at_one_context_another_is_chosen_where_it_is_five_percent_faster() -> None:
    found = times(plain=(6, 24, 8, 60), gathered=(7, 16, 8.1, 61))
    assert choose(found, {PLAIN, GATHERED}) == everywhere(n8=GATHERED, n32=PLAIN) | {(8, 512): PLAIN}


def test_all_sizes_get_one_kind_of_sums() -> None:
    """Splits of 64 win at batch 1 and lose more at batch 4: bits must not follow from the batch."""
    found = times(plain=(6, 24, 8, 60), fine=(5, 20, 16, 120))
    assert choose(found, {PLAIN, FINE}) == everywhere(n8=PLAIN, n32=PLAIN)
    assert choose(found, {FINE}) == everywhere(n8=FINE, n32=FINE)


def test_what_failed_the_check_or_was_not_timed_everywhere_is_not_chosen() -> None:
    found = times(plain=(6, 24, 8, 60), gathered=(1, 1, 1, 1))
    assert choose(found, {PLAIN}) == everywhere(n8=PLAIN, n32=PLAIN)
    del found[SIZES[1, 8192]][GATHERED]
    assert choose(found, {PLAIN, GATHERED}) == everywhere(n8=PLAIN, n32=GATHERED)
    assert choose(found, set()) == {}


def evaluated(entries: str) -> dict[tuple[int, int, int], SizedTunings]:
    names = {"AttentionTuning": AttentionTuning, "SizedTunings": SizedTunings, "ANY": attention_tuning.ANY}
    found: dict[tuple[int, int, int], SizedTunings] = eval("{" + entries + "}", names)
    return found


def test_what_is_printed_is_what_the_kernels_then_use(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = everywhere(n8=GATHERED, n32=GATHERED, n128=PLAIN) | {(128, 512): GATHERED}
    text = measured_entry(HEADS, chosen)
    assert text.count("AttentionTuning(") == 3, "two bounds that share a tuning are one"
    monkeypatch.setattr(attention_tuning, "ONE_ROW", evaluated(text))
    monkeypatch.setattr(attention_tuning, "FEW_ROWS", {})
    attention = SplitAttention(attention_tuning.measured_attention)
    for size, tuning in (
        (AttentionSize(HEADS, 1, 512), GATHERED),
        (AttentionSize(HEADS, 4, 512), GATHERED),  # 32 tiles
        (AttentionSize(HEADS, 2, 512, rows=8), attention_tuning.MANY_ROWS),
        (AttentionSize(HEADS, 5, 512), GATHERED),
        (AttentionSize(HEADS, 5, 513), PLAIN),
        (AttentionSize(HEADS, 5, 100_000), PLAIN),
        (AttentionSize(HEADS, 500, 512), PLAIN),
        (AttentionSize(HeadLayout(32, 8, 64), 1, 512), AttentionTuning()),
    ):
        assert attention.plan(size.step("meta"), 16, size.heads, torch.bfloat16).tuning == tuning, size


def test_tunings_of_one_model_cannot_differ_in_their_sums() -> None:
    with pytest.raises(ConfigError, match="differ in split"):
        SizedTunings(((8, 512, PLAIN), (32, 512, FINE)))
    with pytest.raises(ConfigError, match="each above the one before"):
        SizedTunings(((8, 512, PLAIN), (8, 512, GATHERED)))
    with pytest.raises(ConfigError, match="at least one pair"):
        SizedTunings(())


def test_without_a_measurement_nothing_changes() -> None:
    assert (
        attention_tuning.measured_attention(AttentionShape(HeadLayout(7, 7, 16), 1, 1, 512, False)) == AttentionTuning()
    )
    assert variants()[0] == AttentionTuning() and len(set(variants())) == len(variants())


def test_rows_of_one_model_have_the_same_sums_however_many_there_are() -> None:
    several = (attention_tuning.MANY_ROWS, attention_tuning.TREES, attention_tuning.PROMPT)
    for sized in (*attention_tuning.ONE_ROW.values(), *attention_tuning.FEW_ROWS.values()):
        assert {sized.at(8, 512).bits} == {tuning.bits for tuning in several}


def test_few_rows_that_fill_several_tiles_share_one() -> None:
    def chosen(rows: int, batch: int = 1, keys: int = 8192, heads: HeadLayout = HEADS) -> AttentionTuning:
        return attention_tuning.measured_attention(AttentionShape(heads, batch, rows, keys, tree=False))

    assert chosen(5).lanes == 32
    assert chosen(5, keys=512) == chosen(4) == chosen(17) == attention_tuning.MANY_ROWS
    assert chosen(5, heads=HeadLayout(64, 8, 128)) == attention_tuning.MANY_ROWS, "another group was not measured"
    assert chosen(64, batch=16) == attention_tuning.PROMPT


def test_kernels_are_compiled_once_for_all_sizes_that_share_them() -> None:
    size = SIZES[1, 8192]
    same = [AttentionBuild.of(one, replace(PLAIN, programs=n)) for one in (size, SIZES[4, 512]) for n in (264, 528)]
    assert len(set(same)) == 1
    assert AttentionBuild.of(size, replace(PLAIN, programs=8)) not in same, (
        "one program for all splits is another kernel"
    )
    assert AttentionBuild.of(replace(size, rows=24, tree=True), PLAIN) not in same
    assert AttentionBuild.of(size, replace(PLAIN, num_stages=1)) not in same


def test_the_tree_has_ancestors_behind_its_prefix_and_inside_the_context() -> None:
    step = replace(SIZES[1, 512], rows=24, tree=True).step("cpu")
    assert step.ancestors is not None
    places = step.ancestors.flatten()
    assert len(set(places.tolist())) == 24 * 4 and int(places.min()) == int(step.prefix_lengths[0, 0])
    assert int(places.max()) == 511


class AtOnce(Executor):
    """Runs what it is given when it is given."""

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def test_a_variant_that_does_not_compile_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def no_caches(size: AttentionSize, device: str = "cuda") -> Iterator[None]:
        yield None

    def build(one: AttentionBuild) -> None:
        if one.tuning.gathered:
            raise RuntimeError("too many registers")

    monkeypatch.setattr(tune_attention, "caches", no_caches)
    monkeypatch.setattr(tune_attention, "attention_us", lambda size, made, tuning: float(size.context))
    sizes = list(SIZES.values())
    found = timed(CompileAhead(AtOnce(), build, 60), sizes, [PLAIN, GATHERED, FINE])
    assert found == {size: {PLAIN: float(size.context), FINE: float(size.context)} for size in sizes}
    text = table(found, 3e12)
    assert text.count("\n") == 2 * len(sizes) and "32/8x128 batch 4 context 8192" in text
    assert timed(CompileAhead(AtOnce(), build, 0), sizes, [PLAIN]) == {}, "no time, no times"


def test_it_says_so_where_there_is_no_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["tune_attention", "--out", str(tmp_path / "x.json")])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="on a CUDA device"):
        tune_attention.main()


class Pool(AtOnce):
    """In place of the processes."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


@pytest.mark.full
def test_a_whole_search_prints_and_writes_what_it_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that is made up: reading early pays, one variant differs by a bit, one needs too much memory."""
    too_large, wrong = variants()[-1], variants()[1]

    @contextmanager
    def no_caches(size: AttentionSize, device: str = "cuda") -> Iterator[None]:
        yield None

    def run(size: AttentionSize, tuning: AttentionTuning, *_: Any) -> None:
        if replace(tuning, programs=0) == replace(too_large, programs=0):
            raise OutOfResources(300_000, 232_448, "shared memory")

    def us(size: AttentionSize, made: None, tuning: AttentionTuning, behind_rope: bool = False) -> float:
        run(size, tuning)
        return 1.0 if tuning == wrong else 10.0 - 3 * tuning.early + size.batch + behind_rope

    def check(tunings: list[AttentionTuning], *_: Any) -> list[tuple[float, bool]]:
        return [(1.0, tuning != wrong) for tuning in tunings]

    fakes = {"caches": no_caches, "run_once": run, "attention_us": us, "check": check, "ProcessPoolExecutor": Pool}
    fakes |= {"compile_one": lambda build: None, "read_bandwidth": lambda device: 3e12}
    for name, fake in fakes.items():
        monkeypatch.setattr(tune_attention, name, fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "made up")
    out = tmp_path / "attention.json"
    monkeypatch.setattr(sys, "argv", ["tune_attention", "--out", str(out)])
    tune_attention.main()
    printed = capsys.readouterr().out
    assert printed.count("bits DIFFER") == 2 and "behind rope: 9.0" in printed
    one_row, few_rows = printed.split("\nFor attention_tuning.ONE_ROW:\n")[1].split(
        "\nFor attention_tuning.FEW_ROWS:\n"
    )
    for entries in (one_row, few_rows):
        measured = evaluated(entries)
        assert set(measured) == {(32, 8, 128), (32, 8, 64)}
        assert all(tuning.early for sized in measured.values() for *_, tuning in sized.by_size)
    layouts = json.loads(out.read_text())["layouts"]
    assert len(layouts["8b"]["timed"]) == 24 * (len(variants()) - 1), "all but what the device cannot run"
    assert len(layouts["1b"]["checked"]) == len(variants()) - 1
    assert all({"1", "8", "24 tree", "behind rope"} == set(entry["us"]) for entry in layouts["8b"]["more"])
