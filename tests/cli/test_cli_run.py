"""`run`, `compare`, `check`: what goes to stdout, what to stderr, and exit codes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ssd_lab.cli import main
from ssd_lab.cli.main import app
from ssd_lab.settings import settings

LIGHT = ["--set", "threads=1"]


def invoke(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def error_line(result: Result) -> str:
    """The one line on stderr."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_run_prints_prompts_texts_and_numbers(tiny_pair: Any):
    result = invoke("run", "Hello there", "Why?", "-n", "12", "-s", "sync_chain k=3", *LIGHT, *tiny_pair.options)
    assert result.exit_code == 0, result.output
    assert "> Hello there" in result.stdout
    assert "> Why?" in result.stdout
    assert "tokens/round" in result.stdout


def test_json_is_one_document_and_nothing_else(tiny_pair: Any, tmp_path: Path):
    trace = tmp_path / "rounds.jsonl.gz"
    result = invoke(
        "run", "Hello", "-n", "8", "--ignore-eos", "--k", "2", "--f", "2", "--fallback", "fast", "--json",
        "--set", "draft_link=thread", "--trace", str(trace), *LIGHT, *tiny_pair.options,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["strategy"]["name"] == "async_tree"
    assert (document["strategy"]["k"], document["strategy"]["fallback"]["kind"]) == (2, "fast")
    assert len(document["outputs"][0]["token_ids"]) == 8
    from ssd_lab import load_trace

    assert len(load_trace(trace).requests) == 1


def test_options_of_the_engine_mean_what_its_fields_mean(tiny_pair: Any, tmp_path: Path):
    trace = tmp_path / "rounds.jsonl.gz"
    options = ["--threads", "1", "--block-size", "32", "--no-prefix-reuse", "--stop", "zz", "--trace", str(trace)]
    result = invoke("run", "Hi", "-n", "4", "-s", "autoregressive", *options, "--json", *tiny_pair.options)
    assert result.exit_code == 0, result.output
    from ssd_lab import load_trace

    engine = load_trace(trace).meta["engine"]
    assert (engine["threads"], engine["block_size"], engine["prefix_reuse"]) == (1, 32, False)


def test_nested_fields_reach_the_strategy(tiny_pair: Any):
    fields = ["--set", "fan_out.kind=explicit", "--set", "fan_out.hit=[2,1,1]", "--set", "draft_link=inline"]
    result = invoke("run", "Hi", "-n", "4", "--k", "2", *fields, "--json", *LIGHT, *tiny_pair.options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["strategy"]["fan_out"]["hit"] == [2, 1, 1]


def test_prompts_come_from_files_and_stdin(tiny_pair: Any, tmp_path: Path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "one"}\n{"text": "two"}\n\n"three"\n', encoding="utf-8")
    options = ["-s", "autoregressive", "-n", "2", "--json", *LIGHT, *tiny_pair.options]
    result = invoke("run", "-", "--prompt-file", str(file), *options, stdin="zero\n\n")
    assert result.exit_code == 0, result.output
    assert [output["prompt"] for output in json.loads(result.stdout)["outputs"]] == ["zero", "one", "two", "three"]
    limited = invoke("run", "--prompt-file", str(file), "--limit", "1", *options)
    assert len(json.loads(limited.stdout)["outputs"]) == 1


def test_compare_prints_a_row_for_each_strategy(tiny_pair: Any):
    chosen = ["-s", "autoregressive", "-s", "sync_chain", "-s", "prompt_lookup longest=2"]
    result = invoke("compare", "Hello", "-n", "8", "--k", "2", *chosen, "--json", *LIGHT, *tiny_pair.options)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert [row["strategy"] for row in rows] == ["autoregressive", "sync_chain", "prompt_lookup"]
    assert all(row["same_text"] == 1 for row in rows)


@pytest.mark.full
def test_check_says_same(tiny_pair: Any):
    smallest = ["--num-prompts", "2", "-n", "4", "--batch", "2", "--draws", "500", "-t", "1.0"]
    result = invoke("check", "-s", "prompt_lookup", "--quick", *smallest, "--json", *LIGHT, *tiny_pair.options)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["same"] is True
    assert {path["path"] for path in document["paths"]} == {"custom", "none"}


def test_check_finds_a_fault_in_a_strategy_of_the_users(
    tiny_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "my_wrong_strategy.py").write_text(
        "import torch\n"
        "from ssd_lab import Draft, SequenceStrategy, register_strategy\n"
        "@register_strategy\n"
        "class Wrong(SequenceStrategy):\n"
        "    strategy_name = 'wrong_on_purpose'\n"
        "    @property\n"
        "    def lookahead(self):\n"
        "        return 1\n"
        "    def draft(self, context):\n"
        "        claimed = torch.ones(1, 259)\n"
        "        claimed[0, 7] = 1e-4\n"
        "        return Draft([7], claimed / claimed.sum())\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--import", "my_wrong_strategy", "-s", "wrong_on_purpose", "--no-greedy", "-t", "1", "--draws", "600"]
    try:
        result = invoke("check", *options, *LIGHT, *tiny_pair.options)
    finally:
        from ssd_lab.strategies import registry

        registry._classes.pop("wrong_on_purpose", None)
    assert result.exit_code == 1, result.output
    assert "REJECTED" in result.stdout
    assert "NOT THE SAME" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "Hi", "-s", "asink_tree"], "did you mean 'async_tree'"),
        (["run", "Hi", "--k", "0"], "k=0"),
        (["run", "Hi", "--set", "kk=3"], "unknown field 'kk'"),
        (["run", "Hi", "--set", "k"], "is no assignment"),
        (["run", "Hi", "--k", "3", "--set", "k=4"], "given twice"),
        (["run", "Hi", "--threads", "1", "--set", "threads=2"], "threads was given twice"),
        (["run", "Hi", "--draft-link", "pigeon"], "draft_link="),
        (["compare", "Hi", "--block-size", "0"], "block_size=0"),
        (["run", " "], "empty"),
        (["run", "Hi", "--set", "fan_out.kind=explicit", "--set", "fan_out.hit=[1,1]"], "needs k + 1 = 7"),
        (["run", "Hi", "--import", "no_such_module_here"], "no_such_module_here"),
        (["run", "--prompt-file", "no-such-file.txt"], "no-such-file.txt"),
        (["check", "--no-greedy", "--no-sampled"], "nothing to check"),
        (["check", "--set", "kk=3"], "unknown field 'kk'"),
        (["check", "-s", "asink_tree"], "did you mean 'async_tree'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(tiny_pair: Any, arguments: list[str], expected: str):
    assert expected in error_line(invoke(*arguments, *tiny_pair.options))


def test_an_error_is_json_too_where_json_was_asked_for(tiny_pair: Any):
    result = invoke("run", "Hi", "-s", "nothing_like_it", "--json", *tiny_pair.options)
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document["error"]["type"] == "UnknownStrategyError"
    assert document["outputs"] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("run --bogus", "--bogus"), ("run --k four", "'--k'"), ("nonsense", "'nonsense'"), ("models --nope", "--nope")],
)
def test_a_slip_in_the_options_is_json_too(arguments: str, expected: str):
    result = invoke(*arguments.split(), "--json")
    assert result.exit_code == 2 and expected in json.loads(result.stdout)["error"]["message"]
    plain = invoke(*arguments.split())
    assert plain.exit_code == 2 and plain.stdout == "" and expected.strip("'") in plain.stderr


def test_a_target_that_is_nowhere_is_said_with_the_missing_draft():
    line = error_line(invoke("run", "Hi", "--target", "no-such-folder"))
    assert "needs a draft model" in line and "'no-such-folder' is no folder here" in line
    assert "is no folder here" not in error_line(invoke("run", "Hi", "--target", "bundled-target"))


def test_every_command_that_takes_a_model_says_in_a_line_that_the_hub_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSD_HF_CACHE", str(tmp_path / "hub"))
    settings.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "asked.txt").write_text("Say hi.\nSay no.\n")
    out, asked, model = str(tmp_path / "out"), str(tmp_path / "asked.txt"), ["--target", "some-org/some-model"]
    plain = [*model, "-s", "autoregressive"]
    for arguments in (
        ["run", "Hi", *plain], ["chat", *plain], ["serve", *plain, "--port", "0"], ["compare", "Hi", *plain],
        ["check", "--quick", *model, "-s", "prompt_lookup"], ["models", model[1]],
        ["tune", *model, "--draft", model[1]], ["profile", *model, "--draft", model[1]],
        ["models", "inflate", "--geometry", "llama-1b", "--from", model[1], "--out", out],
        ["train", "draft", *model, "--prompts", asked, "--output", out],
        ["train", "eagle3", *model, "--prompts", asked, "--output", out],
    ):  # fmt: skip
        assert "HF_HUB_OFFLINE is set" in error_line(invoke(*arguments)), arguments
    assert "not on this machine" in error_line(invoke("bench", *model, "--prompt-file", asked, "--numseqs", "1"))
    settings.cache_clear()


def test_ctrl_c_prints_what_was_finished_and_exits_130(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    from ssd_lab.engine.engine import Engine

    right, calls = Engine.step, []

    def interrupted_later(self: Engine) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return right(self)

    monkeypatch.setattr(Engine, "step", interrupted_later)
    options = ["-s", "autoregressive", "-n", "40", "--ignore-eos", "--json", *LIGHT, *tiny_pair.options]
    result = invoke("run", "Hello", *options)
    assert result.exit_code == 130
    output = json.loads(result.stdout)["outputs"][0]
    assert output["finish_reason"] == "cancelled"
    assert 0 < len(output["token_ids"]) < 40


def test_a_warning_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back afterwards
    monkeypatch.setattr(main, "app", lambda **_: warnings.showwarning(UserWarning("[one] broken"), UserWarning, "f", 1))
    main.main()
    assert capsys.readouterr().err == "warning: [one] broken\n"


def test_ctrl_c_before_there_is_anything_exits_130(monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssd_lab.api.run", interrupt)
    assert invoke("run", "Hello").exit_code == 130
