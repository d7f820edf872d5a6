"""`strategies`, `models`, `train`, help, and what the command line does not import."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ssd_lab.cli import output
from ssd_lab.cli.main import app
from ssd_lab.common.parsing import parse_assignments, parse_strategy
from ssd_lab.config import EngineConfig
from ssd_lab.errors import ConfigError

HEAVY = ("torch", "transformers", "numpy", "pydantic", "tokenizers", "rich", "plotly", "ipywidgets")


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_every_command_has_help():
    shown = invoke("--help")
    assert shown.exit_code == 0
    for name in ("run", "compare", "check", "models", "strategies", "demo", "train"):
        assert name in shown.stdout
        assert invoke(name, "--help").exit_code == 0


def test_the_command_line_imports_nothing_heavy():
    code = f"import sys, ssd_lab, ssd_lab.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout.replace("'", '"')) in ([], ["rich"])  # typer may bring rich


def test_listing_the_commands_imports_none_of_them():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom ssd_lab.cli.main import app\n"
        "shown = CliRunner().invoke(app, ['--help'])\n"
        f"print(shown.exit_code, [m for m in ({HEAVY!r} + ('ssd_lab.cli.run',)) if m in sys.modules and m != 'rich'])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split("\n")[0] == "0 []"


@pytest.mark.parametrize("command", ["run", "compare", "check", "tune"])
def test_every_field_of_the_engine_is_an_option_with_its_meaning_default_and_bounds(command: str):
    shown = CliRunner(env={"COLUMNS": "250"}).invoke(app, [command, "--help"]).stdout
    own = {"max_batch"}  # as --batch, which means a list to `check` and one number to `tune`
    for name, field in EngineConfig.model_fields.items():
        assert name in own or f"--{name.replace('_', '-')}" in shown
        assert name in own or str(field.description)[:30] in shown
    for words in ("[default: 16]", "(0..64)", "(above 0)", "auto|torch|triton|flashinfer", "--no-bitwise"):
        assert words in shown


def test_strategies_are_listed():
    shown = invoke("strategies")
    assert shown.exit_code == 0
    for name in ("autoregressive", "sync_chain", "async_tree", "prompt_lookup"):
        assert name in shown.stdout
    schemas = json.loads(invoke("strategies", "--json").stdout)
    assert schemas["async_tree"]["needs_draft"] is True
    assert schemas["async_tree"]["schema"]["properties"]["k"]["maximum"] == 32


def test_one_strategy_shows_its_fields():
    shown = invoke("strategies", "async_tree").stdout
    for word in ("fan_out", "fallback", "jit", "1..32", "--set fan_out.kind=adaptive"):
        assert word in shown
    assert "kind=" not in shown.replace("fan_out.kind=", ""), "a default as one would type it"
    assert "has no fields" in invoke("strategies", "autoregressive").stdout
    unknown = invoke("strategies", "sink_chain")
    assert unknown.exit_code == 2
    assert "sync_chain" in unknown.stderr


def test_models_are_loaded_and_described(tiny_pair: Any):
    shown = invoke("models", tiny_pair.target, tiny_pair.draft, "--pair", "--json")
    assert shown.exit_code == 0, shown.output
    target = json.loads(shown.stdout)[tiny_pair.target]
    assert (target["layers"], target["vocabulary"], target["tokenizer"]) == (2, 259, True)
    assert target["bytes_on_disk"] > 100_000
    assert "layers" in invoke("models", tiny_pair.target).stdout
    draft = json.loads(invoke("models", "bundled-draft", "--json").stdout)["bundled-draft"]
    assert (draft["vocabulary"], draft["bytes_on_disk"] > 1_000_000) == (4096, True)


def test_a_damaged_model_is_named(tiny_pair: Any, tmp_path: Path):
    weights = Path(tiny_pair.target, "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_bytes(Path(tiny_pair.target, "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    shown = invoke("models", str(tmp_path))
    assert shown.exit_code == 2
    assert "truncated" in shown.stderr


def test_a_report_is_drawn_at_a_terminal_and_plain_in_a_file(monkeypatch: pytest.MonkeyPatch):
    shown = {}
    for terminal in (True, False):
        out = Console(file=io.StringIO(), width=60, force_terminal=terminal)
        monkeypatch.setattr(output, "console", lambda out=out: out)
        output.print_markdown("# Times\n\n| rows | ms |\n| ---: | ---: |\n| 1 | 2.5 |\n")
        shown[terminal] = out.file.getvalue()
    assert shown[False].startswith("# Times") and "| ---: |" in shown[False]
    assert "---:" not in shown[True] and "2.5" in shown[True]


def test_train_names_a_missing_file(tmp_path: Path):
    shown = invoke("train", "draft", "--prompts", "none.jsonl", "--output", str(tmp_path))
    assert shown.exit_code == 2
    assert "none.jsonl" in shown.stderr


def test_assignments_are_json_or_words_and_nest():
    assert parse_assignments(["k=6", "fallback=fast", "fan_out.kind=explicit", "fan_out.hit=[1, 2]"]) == {
        "k": 6, "fallback": "fast", "fan_out": {"kind": "explicit", "hit": [1, 2]},
    }  # fmt: skip
    assert parse_strategy("async_tree f=1 fallback=fast") == {"strategy": "async_tree", "f": 1, "fallback": "fast"}
    assert parse_strategy("async_tree") == {"strategy": "async_tree"}
    for wrong in ("", "k", "=3", "a..b=1"):
        with pytest.raises(ConfigError, match="is no assignment"):
            parse_assignments([wrong])
    with pytest.raises(ConfigError, match="was given a value already"):
        parse_assignments(["a=1", "a.b=2"])


def test_settings_come_from_the_environment_then_the_toml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ssd_lab.settings import Settings

    (tmp_path / "ssd_lab.toml").write_text('hf_cache = "/toml"\ntarget_model = "toml/model"\n', encoding="utf-8")
    (tmp_path / ".env").write_text("SSD_HF_CACHE=/dotenv\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSD_HF_CACHE", raising=False)
    assert (str(Settings().hf_cache), Settings().target_model) == ("/dotenv", "toml/model")
    monkeypatch.setenv("SSD_HF_CACHE", "/environment")
    assert str(Settings().hf_cache) == "/environment"
    assert Settings().draft_model is None
