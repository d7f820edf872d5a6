"""Results for notebook 10: read by name, and what is none is told with its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.result import BenchResult
from ssd_lab.errors import ConfigError
from ssd_lab.notebooks.results import committed, two_gpus


def document(**fields: object) -> dict[str, object]:
    result = BenchResult(BenchConfig(strategy="sync_chain"), {"hardware": {"cpu": "x", "gpus": []}}, {}, exact=True)
    return {"id": 1, "name": None, "group": None, **result.as_dict(), **fields}


def test_one_run_a_file_or_a_list_of_them_by_name(tmp_path: Path):
    (tmp_path / "b.json").write_text(json.dumps(document(name="mine")), encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps([document(), document(name="other")]), encoding="utf-8")
    (tmp_path / "notes.md").write_text("no result", encoding="utf-8")
    found = committed(tmp_path)
    assert list(found) == ["a-1", "mine", "other"]
    assert found["mine"].config.strategy == "sync_chain"


@pytest.mark.parametrize("content", ["{", "[]x", '{"version": 1}', "[3]", json.dumps(document(version=0))])
def test_what_is_no_result_is_told(tmp_path: Path, content: str):
    (tmp_path / "wrong.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError):
        committed(tmp_path)


def test_a_missing_folder_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="ssd-lab bench --json"):
        committed(tmp_path / "nowhere")


def test_those_that_come_along_can_be_read():
    assert all(isinstance(result, BenchResult) for result in committed().values())


def test_rounds_of_two_gpus_are_one_text_written_in_two_ways() -> None:
    """Synchronous drafts end before the target's outcome; an asynchronous tree grows while the target verifies."""
    traces = two_gpus()
    assert traces["synchronous"].requests[0].token_ids == traces["asynchronous"].requests[0].token_ids
    assert traces["synchronous"].meta["engine"]["placement"]["draft"] == []
    assert traces["asynchronous"].meta["engine"]["placement"]["draft"] == ["cuda:1"]
    trees = [a for one in traces["asynchronous"].rounds for a in one.activities if a.name == "tree"]
    verified = [a for one in traces["asynchronous"].rounds for a in one.activities if a.name == "verify"]
    beside = [sum(v.start_s < (t.start_s + t.end_s) / 2 < v.end_s for v in verified) for t in trees]
    assert beside.count(1) >= 0.9 * len(trees) > 50
    ends = [one.end_s - one.start_s for one in traces["asynchronous"].rounds]
    assert 0 < sum(ends) < sum(one.end_s - one.start_s for one in traces["synchronous"].rounds)
