"""`data prepare`: from the hub's files and from files at hand to one file of prompts a set, whole or not at all."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from bench_data_files import write_lines, write_parquet

from ssd_lab.bench.data import DATASETS, BenchPrompt, load_prompts
from ssd_lab.bench.data.prepare import find_source, prepare, prepare_many, write_prompts
from ssd_lab.errors import DatasetError
from ssd_lab.settings import settings

MT_ROW = {"question_id": 101, "category": "reasoning", "turns": ["first?", "second?"], "reference": ["one", "two"]}
HUMANEVAL = {"task_id": "HumanEval/7", "prompt": "def f():\n", "canonical_solution": "    pass\n"}
TESTS = {"test": "def check(candidate):\n    assert candidate() is None\n", "entry_point": "f"}
CHAT = [{"role": "user", "content": "a chat"}, {"role": "assistant", "content": "?"}]

# for each set: a row of its source, where the hub keeps it, and the prompt that it must become
SOURCES: dict[str, tuple[str, dict[str, Any], BenchPrompt]] = {
    "gsm8k": (
        "main/test-00000-of-00001.parquet",
        {"question": "How many?", "answer": "<<1+1=2>>2\n#### 2"},
        BenchPrompt("gsm8k/test/0", "gsm8k", "How many?", "<<1+1=2>>2\n#### 2"),
    ),
    "humaneval": (
        "openai_humaneval/test-00000-of-00001.parquet",
        {**HUMANEVAL, **TESTS},
        BenchPrompt("humaneval/7", "humaneval", "def f():\n", "    pass\n", TESTS),
    ),
    "alpaca": (
        "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",
        {"instruction": "Translate.", "input": "Hallo", "output": "Hello", "text": "Below is an instruction"},
        BenchPrompt("alpaca/train/0", "alpaca", "Translate.\n\nHallo", "Hello"),
    ),
    "ultrafeedback": (
        "data/test_prefs-00000-of-00001.parquet",
        {"prompt": "Why?", "chosen": CHAT},
        BenchPrompt("ultrafeedback/test_prefs/0", "ultrafeedback", "Why?"),
    ),
    "c4": (
        "en/c4-validation.00000-of-00008.json.gz",
        {"text": "A page.\nOf the web.", "timestamp": "2019", "url": "-"},
        BenchPrompt("c4/validation/0", "c4", "A page.\nOf the web."),
    ),
    "mt_bench": (
        "raw/question.jsonl",
        MT_ROW,
        BenchPrompt("mt_bench/reasoning/101", "mt_bench", "first?", "one", {"category": "reasoning"}),
    ),
    "spec_bench": (
        "question.jsonl",
        MT_ROW,
        BenchPrompt("spec_bench/reasoning/101", "spec_bench", "first?", "one", {"category": "reasoning"}),
    ),
}  # fmt: skip


def write_source(file: Path, rows: list[dict[str, Any]]) -> Path:
    if file.suffix == ".parquet":
        return write_parquet(file, rows)
    write_lines(file, rows)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(file.read_bytes()))
    return file


class LocalHub:
    """Stands in for the hub's client: gives a folder with the wanted files of a repository laid out as on the hub."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, Any]] = []

    def snapshot_download(self, repo: str, *, repo_type: str, allow_patterns: list[str], **options: Any) -> str:
        assert repo_type == "dataset"
        self.asked.append((repo, options["cache_dir"]))
        home = self.folder / repo
        if not home.is_dir():
            raise OSError("no route to the hub")
        for file in home.rglob("*.*"):
            assert not file.is_file() or any(fnmatch(str(file.relative_to(home)), wanted) for wanted in allow_patterns)
        return str(home)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    fake = LocalHub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake.snapshot_download)
    return fake


@pytest.mark.parametrize("name", list(DATASETS))
def test_a_row_of_each_source_on_the_hub_becomes_its_prompt(name: str, hub: LocalHub, tmp_path: Path):
    file, row, expected = SOURCES[name]
    write_source(hub.folder / DATASETS[name].repo / file, [row])
    done = prepare(DATASETS[name], tmp_path / "out")
    assert (done.file, done.rows) == (tmp_path / "out" / name / f"{name}.jsonl", 1)
    assert DATASETS[name].repo in done.source
    assert load_prompts(name, None, folder=tmp_path / "out") == [expected]


def test_the_hub_is_asked_for_into_the_cache_of_the_settings(hub: LocalHub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSD_HF_CACHE", "cache")
    settings.cache_clear()
    write_source(hub.folder / "allenai" / "c4" / SOURCES["c4"][0], [{"text": "a"}])
    prepare(DATASETS["c4"], Path("out"))
    assert hub.asked == [("allenai/c4", Path("cache"))]


def test_the_hubs_own_client_gives_what_its_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The real client, without a network: links to blobs, laid out as it does itself."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SSD_HF_CACHE", str(tmp_path / "cache"))
    settings.cache_clear()
    file, row, expected = SOURCES["gsm8k"]
    home = tmp_path / "cache" / "datasets--openai--gsm8k"
    commit = "0123456789abcdef0123456789abcdef01234567"
    blob = write_parquet(home / "blobs" / "b10b", [row])
    link = home / "snapshots" / commit / file
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit, encoding="utf-8")
    prepare(DATASETS["gsm8k"], tmp_path / "out")
    assert load_prompts("gsm8k", 1, folder=tmp_path / "out") == [expected]
    with pytest.raises(DatasetError, match=r"c4 could not be downloaded from the hub's allenai/c4 \(.*192 rows came"):
        prepare(DATASETS["c4"], tmp_path / "out")


def test_spec_bench_has_its_parts_from_several_files(hub: LocalHub, tmp_path: Path):
    home = hub.folder / DATASETS["spec_bench"].repo
    write_lines(home / "question.jsonl", [MT_ROW])
    write_lines(home / "qa.jsonl", [{"turns": ["who?"]}, {"turns": ["when?"], "reference": ["1900", "1901"]}])
    write_lines(home / "rag.jsonl", [{"prompt": "read", "question_id": 401, "reference": "x"}])
    prepare(DATASETS["spec_bench"], tmp_path)
    rows = load_prompts("spec_bench", None, folder=tmp_path)
    assert [(row.id, row.reference) for row in rows] == [
        ("spec_bench/reasoning/101", "one"),
        ("spec_bench/qa/1", None),
        ("spec_bench/qa/2", "1900; 1901"),
        ("spec_bench/rag/401", "x"),
    ]


def test_shards_are_numbered_through_and_rows_limits_them(tmp_path: Path, gsm8k_rows: list[dict[str, Any]]):
    files = [
        write_parquet(tmp_path / f"main/test-0000{shard}-of-00002.parquet", gsm8k_rows[6 * shard : 6 * shard + 6])
        for shard in (0, 1)
    ]
    prepare(DATASETS["gsm8k"], tmp_path, source=files, rows=8)
    rows = load_prompts("gsm8k", None, folder=tmp_path)
    assert [row.id for row in rows] == [f"gsm8k/test/{number}" for number in range(8)]
    assert [row.text for row in rows] == [row["question"] for row in gsm8k_rows[:8]]


@pytest.mark.parametrize(
    ("name", "row", "text"),
    [
        ("alpaca", {"instruction": "Do it.", "input": "", "output": "x"}, "Do it."),
        ("alpaca", {"instruction": "Do it."}, "Do it."),
        ("ultrafeedback", {"instruction": "Of the original.", "source": "flan"}, "Of the original."),
        ("ultrafeedback", {"chosen": CHAT}, "a chat"),
        ("mt_bench", {"prompt": ["as a list", "x"], "category": "math", "prompt_id": 5}, "as a list"),
        ("humaneval", {"text": "def g():\n"}, "def g():\n"),
    ],
)
def test_other_forms_of_the_same_sources_are_read(name: str, row: dict[str, Any], text: str, tmp_path: Path):
    write_lines(tmp_path / f"{name}.jsonl", [row])
    assert load_prompts(name, 1, folder=tmp_path)[0].text == text


@pytest.mark.parametrize(
    "place",
    [
        "gsm8k.jsonl",
        "GSM8K.json",
        "gsm8k.parquet",
        "gsm8k.jsonl.gz",
        "gsm8k/gsm8k_data_10000.jsonl",
        "gsm8k/anything.json.gz",
        "gsm8k/main/test-00000-of-00001.parquet",
        "openai/gsm8k/main/test-00000-of-00001.parquet",
    ],
)
def test_files_at_hand_are_found_where_they_usually_are(place: str, tmp_path: Path, gsm8k_rows: list[dict[str, Any]]):
    file = write_source(tmp_path / "from" / place, gsm8k_rows)
    (tmp_path / "from" / "gsm8k").mkdir(exist_ok=True)
    done, failed = prepare_many(["gsm8k"], tmp_path / "out", source=tmp_path / "from")
    assert not failed
    assert (done[0].rows, done[0].source) == (12, str(file))


def test_one_set_may_be_given_as_a_file_or_as_the_folder_itself(tmp_path: Path, gsm8k_rows: list[dict[str, Any]]):
    file = write_parquet(tmp_path / "main" / "test-00000-of-00001.parquet", gsm8k_rows)
    for given in (file, tmp_path):
        assert find_source(DATASETS["gsm8k"], given, alone=True) == [file]
        assert find_source(DATASETS["gsm8k"], given, alone=False) == []


def test_a_json_list_is_read_too(tmp_path: Path, gsm8k_rows: list[dict[str, Any]]):
    (tmp_path / "gsm8k.json").write_text(json.dumps(gsm8k_rows, indent=1), encoding="utf-8")
    assert prepare_many(["gsm8k"], tmp_path, source=tmp_path)[0][0].rows == 12


def test_without_names_all_sets_that_are_there_are_prepared(tmp_path: Path):
    write_lines(tmp_path / "from" / "alpaca.jsonl", [{"text": "a"}])
    write_lines(tmp_path / "from" / "c4" / "c4_data_10000.jsonl", [{"text": "c"}])
    done, failed = prepare_many([], tmp_path / "out", source=tmp_path / "from")
    assert ([each.dataset for each in done], failed) == (["alpaca", "c4"], {})


def test_a_set_that_fails_does_not_stop_the_others(hub: LocalHub, tmp_path: Path):
    for name in ("gsm8k", "c4"):
        file, row, _ = SOURCES[name]
        write_source(hub.folder / DATASETS[name].repo / file, [row])
    done, failed = prepare_many(["alpaca", "gsm8k", "humaneval", "c4"], tmp_path / "out")
    assert ([each.dataset for each in done], list(failed)) == (["gsm8k", "c4"], ["alpaca", "humaneval"])
    for words in ("tatsu-lab/alpaca", "no route to the hub", "--from FOLDER"):
        assert words in str(failed["alpaca"])
    assert "131 rows came with the package" in str(failed["humaneval"])
    assert not (tmp_path / "out" / "alpaca").exists()


def test_a_repository_without_the_expected_files_is_named(hub: LocalHub, tmp_path: Path):
    (hub.folder / "openai" / "gsm8k").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"the hub's openai/gsm8k has no main/test-\*.parquet"):
        prepare(DATASETS["gsm8k"], tmp_path)


def test_what_is_not_at_hand_is_named(tmp_path: Path):
    write_lines(tmp_path / "from" / "c4.jsonl", [{"text": "c"}])
    _, failed = prepare_many(["gsm8k"], tmp_path, source=tmp_path / "from")
    assert "from holds no gsm8k: looked for gsm8k.jsonl" in str(failed["gsm8k"])
    with pytest.raises(DatasetError, match="missing does not exist: --from takes a folder, or one file"):
        prepare_many([], tmp_path, source=tmp_path / "missing")
    with pytest.raises(DatasetError, match="holds none of gsm8k, humaneval"):
        prepare_many([], tmp_path, source=tmp_path / "from" / "..")
    with pytest.raises(DatasetError, match="'gms8k' is no set"):
        prepare_many(["c4", "gms8k"], tmp_path / "out", source=tmp_path / "from")
    assert not (tmp_path / "out").exists()  # names are checked before anything is done


def test_a_damaged_source_leaves_what_was_prepared_before(tmp_path: Path, gsm8k_rows: list[dict[str, Any]]):
    good = write_lines(tmp_path / "good.jsonl", gsm8k_rows)
    before = prepare(DATASETS["gsm8k"], tmp_path, source=[good]).file
    kept = before.read_bytes()
    whole = write_parquet(tmp_path / "whole.parquet", gsm8k_rows).read_bytes()
    (tmp_path / "short.parquet").write_bytes(whole[:-20])
    (tmp_path / "short.jsonl.gz").write_bytes(gzip.compress(good.read_bytes())[:-20])
    packed = bytearray(gzip.compress(good.read_bytes()))
    packed[40:60] = b"\xff" * 20
    (tmp_path / "damaged.jsonl.gz").write_bytes(packed)
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    write_lines(tmp_path / "twice.jsonl", [{"id": "x", "dataset": "gsm8k", "text": "a"}] * 2)
    for name, said in {
        "short.parquet": "is no whole parquet file",
        "short.jsonl.gz": "cannot be read",
        "damaged.jsonl.gz": "cannot be read",
        "empty.jsonl": "no row was found",
        "twice.jsonl": "two rows have the id 'gsm8k/x'",
    }.items():
        with pytest.raises(DatasetError, match=said):
            prepare(DATASETS["gsm8k"], tmp_path, source=[tmp_path / name])
        assert [file.name for file in before.parent.iterdir()] == ["gsm8k.jsonl"]
        assert before.read_bytes() == kept


def test_an_interruption_leaves_nothing_half_written(tmp_path: Path):
    def interrupted() -> Iterator[BenchPrompt]:
        yield BenchPrompt("c4/0", "c4", "a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_prompts(interrupted(), tmp_path / "c4" / "c4.jsonl")
    assert list((tmp_path / "c4").iterdir()) == []


def _write_slowly(folder: Path) -> None:
    def slow() -> Iterator[BenchPrompt]:
        for row in range(100_000):
            time.sleep(0.001)
            yield BenchPrompt(f"c4/{row}", "c4", "text " * 1000)

    write_prompts(slow(), folder / "c4" / "c4.jsonl")


def test_a_killed_run_leaves_nothing_that_is_read(tmp_path: Path):
    write_prompts([BenchPrompt("c4/0", "c4", "before")], tmp_path / "c4" / "c4.jsonl")
    child = multiprocessing.get_context("fork").Process(target=_write_slowly, args=(tmp_path,))
    child.start()
    deadline_s = time.monotonic() + 20
    while not any(file.stat().st_size > 0 for file in tmp_path.rglob(".*.part")) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert list(tmp_path.rglob(".*.part"))  # it was in the middle of writing
    assert [row.text for row in load_prompts("c4", None, folder=tmp_path)] == ["before"]
    assert find_source(DATASETS["c4"], tmp_path, alone=False) == [tmp_path / "c4" / "c4.jsonl"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="file/c4 cannot be written to"):
        write_prompts([BenchPrompt("c4/0", "c4", "a")], tmp_path / "file" / "c4" / "c4.jsonl")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "gsm8k.parquet").touch()
    with pytest.raises(DatasetError, match=r"pip install -e '\.\[data\]'"):
        prepare(DATASETS["gsm8k"], tmp_path, source=[tmp_path / "gsm8k.parquet"])
