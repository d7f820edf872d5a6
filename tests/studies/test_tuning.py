"""The study of `tune`'s choices: what is benched, what a row of its table says, and all of it once, small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studies.tuning.__main__ import contenders, main


def ran(label: str, strategy: str) -> dict[str, object]:
    return {"label": label, "strategy": strategy, "fields": {"k": int(label[-1])}}


def test_every_winner_and_one_of_each_family_are_benched():
    tries = [
        {"ran": [ran("chain 4", "sync_chain"), ran("tree 4", "async_tree")]},
        {"ran": [ran("tree 2", "async_tree"), ran("chain 6", "sync_chain")]},
    ]
    assert [one.label for one in contenders(tries)] == ["sync_chain k=4", "async_tree k=4", "async_tree k=2"]


@pytest.mark.extended
@pytest.mark.full
def test_a_study_from_its_first_try_to_its_table(tmp_path: Path):
    few = ["gsm8k", "--out", str(tmp_path), "--prompts", "1"]
    assert main(["tune", *few, "--tries", "1", "--budget-s", "2"]) == "gsm8k: 1 tries"
    assert main(["tune", *few, "--tries", "1"]) == "gsm8k: 1 tries", "it was made already"
    assert main(["bench", *few, "--repeats", "2"]).startswith("gsm8k: best ")
    bench = json.loads((tmp_path / "gsm8k.bench.json").read_text(encoding="utf-8"))
    assert bench["over_best"][bench["best"]][0] == pytest.approx(1.0)
    assert bench["best"] in bench["within_noise"]
    winner = json.loads((tmp_path / "gsm8k.tune.jsonl").read_text(encoding="utf-8"))["ran"][0]["label"]
    inside = "yes" if winner in bench["within_noise"] else "no"
    assert main(["table", "--out", str(tmp_path)]).splitlines()[-1].endswith(f"| {inside} |")
