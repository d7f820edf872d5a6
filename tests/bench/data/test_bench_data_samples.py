"""The bundled samples: small, of permitted licences, drawn by the committed rule; and what the command line shows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bench_data_files import write_lines
from typer.testing import CliRunner

import ssd_lab
from ssd_lab.bench.data import DATASETS, BenchPrompt, load_prompts
from ssd_lab.bench.data.registry import SAMPLES as FOLDER
from ssd_lab.cli.main import app
from ssd_lab.errors import DatasetError
from studies.samples.__main__ import main as draw_samples
from studies.samples.drawing import LIMIT_BYTES, SAMPLES, SEED, Sample, draw, write_samples


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["data", *arguments], env={"COLUMNS": "200"})


def prompts(count: int, **fields: Any) -> list[BenchPrompt]:
    return [BenchPrompt(f"c4/{row}", "c4", f"text {row}", **fields) for row in range(count)]


def test_all_samples_together_stay_small_and_lie_in_the_package():
    files = sorted(FOLDER.glob("*.jsonl"))
    assert [file.stem for file in files] == sorted(SAMPLES)
    assert sum(file.stat().st_size for file in files) <= LIMIT_BYTES
    assert FOLDER.is_relative_to(Path(ssd_lab.__file__).parent)


def test_sets_that_may_not_be_passed_on_are_not_bundled():
    assert [name for name, dataset in DATASETS.items() if not dataset.bundled_rows] == ["alpaca"]
    assert DATASETS["alpaca"].not_bundled
    parts = Counter(row.extra["licence"] for row in load_prompts("spec_bench", None))
    assert parts == {"Apache-2.0": 64, "MIT": 64, "CC BY-SA 3.0": 64}
    categories = {row.extra["category"] for row in load_prompts("spec_bench", None)}
    assert not categories & {"translation", "summarization", "rag"}


def test_every_bundled_set_is_named_in_the_notice():
    notice = (FOLDER / "NOTICE").read_text(encoding="utf-8")
    for name in SAMPLES:
        assert f"{name}.jsonl" in notice
        assert DATASETS[name].licence.split(",")[0] in notice


@pytest.mark.parametrize(
    "line",  # as the sets' own LICENSE files have it
    ["Copyright (c) 2021 OpenAI", "Copyright (c) OpenAI (https://openai.com)", "Copyright (c) 2023 THUNLP"],
)
def test_the_copyright_notices_that_mit_asks_for_are_kept(line: str):
    assert f"\n    {line}\n" in (FOLDER / "NOTICE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(SAMPLES))
def test_drawing_from_a_sample_gives_the_sample(name: str):
    """So seed, filters and order are those of the committed rule."""
    rows = load_prompts(name, None)
    assert draw(rows, SAMPLES[name], SEED) == rows
    assert draw(rows, SAMPLES[name], SEED + 1) != rows


def test_first_rows_are_mixed_over_the_categories():
    for name, categories in (("mt_bench", 8), ("spec_bench", 10)):
        assert len({row.extra["category"] for row in load_prompts(name, categories)}) == categories


def test_a_sample_is_the_same_in_whatever_order_the_rows_come():
    rows = prompts(50)
    drawn = draw(rows, Sample(rows=10), seed=1)
    assert draw(rows[::-1], Sample(rows=10), seed=1) == drawn
    assert len(drawn) == 10


def test_long_texts_are_cut_after_a_word_or_left_out():
    row = BenchPrompt("c4/0", "c4", "many words make a text")
    assert draw([row], Sample(longest=12, cut=True), 0)[0].text == "many words"
    assert draw([row], Sample(longest=12), 0) == []
    assert draw([row], Sample(shortest=30), 0) == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("call 1600-555-0123 now", False),
        ("write to a.b@example.org", False),
        ("see https://example.org", False),
        ("see www.example.org", False),
        ("from 1990 to 2000, 12.5 %", True),
    ],
)
def test_contact_details_are_left_out_of_texts_from_the_web(text: str, kept: bool):
    assert bool(draw([BenchPrompt("c4/0", "c4", text)], Sample(from_the_web=True), 0)) == kept


def test_rows_that_reading_showed_to_be_unfit_and_categories_without_a_licence_are_left_out():
    rows = [BenchPrompt(f"spec_bench/{part}/1", "spec_bench", "a") for part in ("qa", "rag")]
    drawn = draw(rows, Sample(licences={"qa": "X"}), 0)
    assert [(row.id, row.extra) for row in drawn] == [("spec_bench/qa/1", {"category": "qa", "licence": "X"})]
    assert draw(rows, Sample(left_out=frozenset({"spec_bench/qa/1", "spec_bench/rag/1"})), 0) == []


def test_samples_are_drawn_by_the_command_byte_for_byte(tmp_path: Path):
    shown = draw_samples(["--from", str(FOLDER), "--out", str(tmp_path)])
    assert {tuple(line.split()[:2]) for line in shown.splitlines()[1:]} == {
        (name, str(DATASETS[name].bundled_rows)) for name in SAMPLES
    }
    for name in SAMPLES:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (FOLDER / f"{name}.jsonl").read_bytes()


def test_samples_that_are_too_large_or_incomplete_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DatasetError, match="holds no gsm8k: the samples are drawn from gsm8k, humaneval"):
        write_samples(tmp_path, tmp_path / "out")
    monkeypatch.setattr("studies.samples.drawing.LIMIT_BYTES", 1000)
    with pytest.raises(DatasetError, match="and at most 1000 are bundled"):
        write_samples(FOLDER, tmp_path / "out")


def test_list_shows_rows_source_and_licence(tmp_path: Path):
    write_lines(tmp_path / "alpaca.jsonl", [{"text": "a"}, {"text": "b"}])
    rows = {row["name"]: row for row in json.loads(invoke("list", "--folder", str(tmp_path), "--json").stdout)}
    assert list(rows) == list(DATASETS)
    assert (rows["gsm8k"]["bundled_rows"], rows["gsm8k"]["prepared_rows"]) == (512, 0)
    assert (rows["alpaca"]["bundled_rows"], rows["alpaca"]["prepared_rows"]) == (0, 2)
    assert (rows["alpaca"]["licence"], rows["alpaca"]["source"]) == ("CC BY-NC 4.0", "tatsu-lab/alpaca")
    table = invoke("list", "--folder", str(tmp_path)).stdout
    for words in ("512", "openai/gsm8k (test)", "ODC-BY 1.0", "alpaca is not bundled: its licence is for", "read from"):
        assert words in table


def test_prepare_writes_what_list_and_benchmarks_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_lines(tmp_path / "from" / "alpaca" / "alpaca_data_10000.jsonl", [{"text": f"t{row}"} for row in range(5)])
    nowhere = invoke("prepare", "alpaca", "--from", str(tmp_path / "from"))
    assert (nowhere.exit_code, "SSD_DATASET_DIR=FOLDER" in nowhere.stderr) == (2, True)
    shown = invoke("prepare", "alpaca", "--from", str(tmp_path / "from"), "--out", "mine", "--rows", "3", "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)[0]["rows"] == 3
    assert [row.text for row in load_prompts("alpaca", 3, folder=Path("mine"))] == ["t0", "t1", "t2"]
    both = invoke("prepare", "alpaca", "c4", "--from", str(tmp_path / "from"), "--out", "mine")
    assert both.exit_code == 2
    assert "alpaca.jsonl" in both.stdout  # what was written is shown
    assert "holds no c4" in both.stderr and "written: alpaca" in both.stderr
    assert invoke("prepare", "squad", "--out", "mine").exit_code == 2
