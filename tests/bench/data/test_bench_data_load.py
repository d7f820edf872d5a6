"""`load_prompts`: what is read, which rows, and what is said when there are too few."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench_data_files import write_lines

from ssd_lab.bench.data import DATASETS, BenchPrompt, find_dataset, load_prompts, locate
from ssd_lab.bench.data.prepare import write_prompts
from ssd_lab.errors import DatasetError
from ssd_lab.settings import settings


def texts(prompts: list[BenchPrompt]) -> list[str]:
    return [prompt.text for prompt in prompts]


def bare(folder: Path, name: str, rows: int, file: str | None = None) -> Path:
    """A set in the reference system's form: nothing but texts."""
    return write_lines(folder / name / (file or f"{name}.jsonl"), [{"text": f"{name} {row}"} for row in range(rows)])


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.bundled_rows])
def test_bundled_sets_are_read_without_any_preparation(name: str):
    rows = load_prompts(name, None)
    assert len(rows) == DATASETS[name].bundled_rows == len({row.id for row in rows})
    assert all(row.dataset == name and row.id.startswith(f"{name}/") and row.text.strip() for row in rows)
    assert locate(name).kind == "bundled"


def test_what_the_sources_know_is_kept():
    assert all("####" in (row.reference or "") for row in load_prompts("gsm8k", 50))
    assert all(
        row.text.endswith("\n") and "def " in row.text and row.reference for row in load_prompts("humaneval", 50)
    )
    assert load_prompts("mt_bench", 1)[0].extra["category"] == "coding"


def test_rows_are_taken_in_order_from_the_offset():
    everything = load_prompts("mt_bench", None)
    assert load_prompts("mt_bench", 5, offset=3) == everything[3:8]
    assert load_prompts("mt_bench", None, offset=60) == everything[60:]


def test_a_seed_shuffles_and_its_slices_do_not_overlap():
    shuffled = load_prompts("gsm8k", None, seed=7)
    assert load_prompts("gsm8k", 10, offset=20, seed=7) == shuffled[20:30]
    assert sorted(texts(shuffled)) == sorted(texts(load_prompts("gsm8k", None)))
    assert texts(load_prompts("gsm8k", 20, seed=8)) != texts(shuffled)[:20] != texts(load_prompts("gsm8k", 20))


def test_an_order_depends_on_ids_and_seed_only(tmp_path: Path):
    rows = load_prompts("gsm8k", 40)
    write_prompts(rows, tmp_path / "a" / "gsm8k.jsonl")
    write_prompts(rows[::-1], tmp_path / "b" / "gsm8k.jsonl")
    one, other = (load_prompts("gsm8k", 40, seed=3, folder=tmp_path / name) for name in "ab")
    assert one == other


def test_prepared_sets_come_before_bundled_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bare(tmp_path, "gsm8k", 3)
    monkeypatch.setenv("SSD_DATASET_DIR", str(tmp_path))
    settings.cache_clear()
    assert texts(load_prompts("gsm8k", 2)) == ["gsm8k 0", "gsm8k 1"]
    assert locate("gsm8k").kind == "prepared"
    assert locate("humaneval").kind == "bundled"  # a set that the folder lacks


def test_the_reference_systems_files_are_read_as_they_are(tmp_path: Path):
    bare(tmp_path, "gsm8k", 2, "gsm8k_data_100.jsonl")
    bare(tmp_path, "gsm8k", 5, "gsm8k_data_10000.jsonl")
    bare(tmp_path, "gsm8k", 1, "gsm8k_data_copy.jsonl")
    rows = load_prompts("gsm8k", None, folder=tmp_path)
    assert rows[4] == BenchPrompt("gsm8k/4", "gsm8k", "gsm8k 4")
    assert len(rows) == 5


def test_lines_with_prompt_in_texts_place_are_read(tmp_path: Path):
    row = {"id": "alpaca/9", "dataset": "alpaca", "prompt": "Hi", "reference": None, "more": 1}
    write_lines(tmp_path / "alpaca.jsonl", [row])
    assert load_prompts("alpaca", 1, folder=tmp_path) == [
        BenchPrompt("alpaca/9", "alpaca", "Hi", None, {"more": 1}),
    ]


def test_names_are_forgiving_and_unknown_ones_are_refused():
    assert [find_dataset(name).name for name in ("gsm", "MT-Bench", "Spec-Bench", "HumanEval")] == [
        "gsm8k", "mt_bench", "spec_bench", "humaneval",
    ]  # fmt: skip
    with pytest.raises(DatasetError, match=r"'squad' is no set.*there are gsm8k, humaneval, alpaca"):
        load_prompts("squad", 1)


def test_too_few_rows_are_an_error_and_never_repeated(tmp_path: Path):
    bare(tmp_path, "c4", 3)
    assert len(load_prompts("c4", 3, folder=tmp_path)) == 3
    with pytest.raises(DatasetError, match=r"c4 has 3 prepared rows .*and 4 were asked for: ask for at most 3$"):
        load_prompts("c4", 4, folder=tmp_path)
    with pytest.raises(DatasetError, match="2 from row 2 on were asked for: ask for at most 1"):
        load_prompts("c4", 2, offset=2, folder=tmp_path)
    with pytest.raises(DatasetError, match="take an offset below 3"):
        load_prompts("c4", None, offset=3, folder=tmp_path)
    with pytest.raises(DatasetError, match=r"mt_bench has 64 bundled rows .*`ssd-lab data prepare mt_bench --out"):
        load_prompts("mt_bench", 80)


@pytest.mark.parametrize(("count", "offset"), [(0, 0), (-1, 0), (1, -1)])
def test_counts_and_offsets_are_checked(count: int, offset: int):
    with pytest.raises(DatasetError, match="a count is at least 1, an offset at least 0"):
        load_prompts("gsm8k", count, offset=offset)


def test_a_set_that_is_not_there_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DatasetError) as error:
        load_prompts("alpaca", 1)
    for words in ("non-commercial", "SSD_DATASET_DIR is not set", "ssd-lab data prepare alpaca --out FOLDER"):
        assert words in str(error.value)
    monkeypatch.setenv("SSD_DATASET_DIR", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(DatasetError, match=f"prepare alpaca --out {tmp_path}"):
        load_prompts("alpaca", 1)
    with pytest.raises(DatasetError, match=r"none holds no gsm8k: neither gsm8k/gsm8k\.jsonl, nor"):
        load_prompts("gsm8k", 1, folder=tmp_path / "none")  # a folder that is named does not fall back


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "a', "line 2 is not JSON"),
        ("3", 'line 2 is no object: expected rows such as {"text": ...}'),
        (json.dumps({"texts": "a"}), "line 2 has no 'question' (its keys: texts)"),
        (json.dumps({"text": "  "}), "line 2 has no text: '  '"),
        (json.dumps({"text": None}), "line 2 has no text: None"),
        (json.dumps({"dataset": "gsm8k"}), 'line 2 has no text (its keys: dataset): "text" or "prompt" is needed'),
        (json.dumps({"dataset": "alpaca", "text": "a"}), "line 2 belongs to 'alpaca', and gsm8k was asked for"),
        (json.dumps({"question": "a", "answer": 3}), "line 2: reference is 3, and must be a text or null"),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str, tmp_path: Path):
    file = tmp_path / "gsm8k.jsonl"
    file.write_text('{"text": "fine"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DatasetError) as error:
        load_prompts("gsm8k", None, folder=tmp_path)
    assert f"{file}, " in str(error.value)
    assert said in str(error.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path):
    (tmp_path / "c4.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"c4\.jsonl cannot be read"):
        load_prompts("c4", 1, folder=tmp_path)


def test_a_prompt_survives_its_line(tmp_path: Path):
    prompt = BenchPrompt("humaneval/1", "humaneval", "def f():\n    «ü»\u2028", "x", {"entry_point": "f", "test": "t"})
    write_prompts([prompt], tmp_path / "humaneval.jsonl")
    found: list[Any] = load_prompts("humaneval", 1, folder=tmp_path)
    assert found == [prompt]
