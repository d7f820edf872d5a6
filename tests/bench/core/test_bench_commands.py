"""The reference README's commands, with small lengths, on the bundled models: they run, or say in words why not."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]


SMALL = [
    "--models", "bundled", "--numseqs", "2", "--input_len", "12", "--output_len", "5", "--warmup", "0",
    "--threads", "1", "--draft-link", "inline", "--json",
]  # fmt: skip

# the reference's command (its lengths aside), and the strategy that must have run
RUNNING = [
    ("--size 8 --llama", "autoregressive"),
    ("--llama --size 70 --b 1 --temp 0 --all", "autoregressive"),
    ("--llama --size 70 --spec --k 6 --b 1 --temp 0 --all", "sync_chain"),
    ("--size 70 --draft 1 --llama --spec --k 4", "sync_chain"),
    ("--llama --size 70 --spec --async --k 7 --f 3 --b 1 --temp 0", "async_tree"),
    ("--llama --size 70 --spec --async --k 7 --f 3 --b 4 --all", "async_tree"),
    ("--size 70 --draft 1 --spec --async --k 4 --flh 5 4 3 2 1 --flm 3 3 3 3 3", "async_tree"),
    ("--size 70 --draft 1 --spec --async --k 4 --fl 3 3 3 3 3", "async_tree"),
    ("--size 70 --draft 1 --spec --async --temp 0.7", "async_tree"),
    ("--size 70 --draft 1 --spec --async --backup fast", "async_tree"),
    ("--size 70 --draft 1 --spec --async --temp 0.7 --x 0.5", "async_tree"),
    ("--size 70 --draft 1 --spec --async --temp 0.7 --dtemp 0.3", "async_tree"),
    ("--size 8 --eager", "autoregressive"),
    ("--qwen --size 32 --draft 0.6 --spec --async", "async_tree"),
    ("--size 8 --random", "autoregressive"),
    ("--size 8 --humaneval --prompt_offset 3 --max_model_len 512 --block_sz 32", "autoregressive"),
    ("--size 8 --ultrafeedback --chat_template", "autoregressive"),
    ("--size 8 --c4 --max-steps 3", "autoregressive"),
    ("--llama --size 70 --eagle --k 4", "eagle3"),
    ("--llama --size 8 --eagle --async --k 7", "eagle3"),
]
REFUSED = [
    ("--llama --size 70 --gpus 4 --b 1 --temp 0 --all", "4 GPUs were asked for"),
    ("--llama --size 70 --gpus 4 --spec --k 6 --all", "4 GPUs were asked for"),
    ("--llama --size 70 --gpus 5 --spec --async --k 7 --f 3 --all", "5 GPUs were asked for"),
    ("--llama --size 70 --temp 0.7 --dtemp 0.3", "leave --dtemp out"),
]


@pytest.fixture
def alpaca(bench: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alpaca is not bundled, so --all needs a file as the reference's script writes it."""
    folder = tmp_path / "datasets" / "alpaca"
    folder.mkdir(parents=True)
    lines = [json.dumps({"text": f"Name {count} colours."}) for count in ("two", "three", "four")]
    (folder / "alpaca_data_10000.jsonl").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("SSD_DATASET_DIR", str(tmp_path / "datasets"))


@pytest.mark.quick(
    "--llama --size 8 --eagle --async --k 7-eagle3",
    "--size 70 --draft 1 --spec --async --k 4 --flh 5 4 3 2 1 --flm 3 3 3 3 3-async_tree",
    "--size 8 --humaneval --prompt_offset 3 --max_model_len 512 --block_sz 32-autoregressive",
)
@pytest.mark.grid(full=3)
@pytest.mark.usefixtures("alpaca")
@pytest.mark.parametrize(("command", "strategy"), RUNNING)
def test_a_command_of_the_readme_runs_with_bundled_models(bench: Invoke, command: str, strategy: str):
    result = bench(*command.split(), *SMALL)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    config = document["config"]
    assert (config["strategy"], config["target"]) == (strategy, "bundled")
    datasets = ["humaneval", "alpaca", "gsm8k", "ultrafeedback"] if "--all" in command else config["datasets"]
    assert list(document["datasets"]) == (["random"] if "--random" in command else datasets)
    for dataset in document["datasets"].values():
        tokens = [request["num_output_tokens"] for request in dataset["repeats"][0]["requests"]]
        assert tokens == ([3, 0] if "--max-steps" in command else [5, 5])


@pytest.mark.parametrize(("command", "words"), REFUSED)
def test_a_command_that_cannot_be_is_refused_in_words(bench: Invoke, command: str, words: str):
    result = bench(*command.split(), *SMALL)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not Path("results").exists()


def test_missing_checkpoints_and_gpus_are_named_and_what_works_here_is_offered(bench: Invoke, tiny_pair):
    missing = bench("--size", "8", "--llama", "--device", "cpu")
    assert missing.exit_code == 2
    assert "meta-llama/Llama-3.1-8B-Instruct is not on this machine" in missing.stderr
    assert "--models bundled" in missing.stderr
    with_gpu = bench("--target", tiny_pair.target, "--device", "cuda", *SMALL[2:])
    assert with_gpu.exit_code == 2
    assert "no CUDA GPU is here" in with_gpu.stderr and "--device cpu" in with_gpu.stderr


def test_example_prints_prompts_and_texts(bench: Invoke):
    result = bench("--example", *SMALL[:-1])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n> ") + result.stdout.startswith("> ") == 2
    assert "decode tokens/s" in result.stdout


@pytest.mark.full
def test_wandb_group_and_name_go_to_the_tracker(bench: Invoke, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    from ssd_lab.bench import trackers

    seen: list[Any] = []

    class Run:
        def live(self, state: Any) -> None:
            pass

        def repeat(self, dataset: str, index: int, measured: Any) -> None:
            seen.append((dataset, index))

        def result(self, result: Any) -> None:
            seen.append(list(result.datasets))

        def finish(self, ending: str, error: str | None = None) -> None:
            seen.append(ending)

    def start(self: Any, config: Any, group: str | None, name: str | None) -> Run:
        seen.append((config.strategy, group, name))
        return Run()

    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(trackers.WandbTracker, "start", start)
    result = bench("--wandb", "--group", "g", "--name", "n", *SMALL)
    assert result.exit_code == 0, result.output
    one = [("gsm8k", 0), ["gsm8k"], "finished"]
    assert seen == [("autoregressive", "g", "n"), *one]
    seen.clear()
    swept = bench("--wandb", "--sweep", '[{"b": 2, "name": "two"}, {"b": 3}]', *SMALL)
    assert swept.exit_code == 0, swept.output
    assert seen == [("autoregressive", None, "two"), *one, ("autoregressive", None, None), *one]


def test_the_module_runs_as_the_command_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.argv", ["bench", "--async"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("ssd_lab.bench", run_name="__main__")
    assert ended.value.code == 2
    assert "give --spec --async" in capsys.readouterr().err
