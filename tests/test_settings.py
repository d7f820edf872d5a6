"""Settings: which source wins, where each value came from, and what a wrong one says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ssd_lab.cli.main import app
from ssd_lab.errors import ConfigError
from ssd_lab.settings import Settings, settings

NAMES = ["hf_cache", "dataset_dir", "target_model", "draft_model", "eagle3_specforge", "cuda_arch"]


@pytest.fixture(autouse=True)
def clean_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no variable of ours."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SSD_")]:
        monkeypatch.delenv(name)
    return tmp_path


def toml(text: str) -> None:
    Path("ssd_lab.toml").write_text(text, encoding="utf-8")


def test_without_any_source_every_value_is_the_default():
    fresh = Settings()
    assert [name for name, _ in fresh] == NAMES
    assert all(value is None for _, value in fresh)
    assert {fresh.origin(name) for name in NAMES} == {"default"}


def test_each_source_beats_the_one_below_it(monkeypatch: pytest.MonkeyPatch):
    toml('target_model = "toml/target"\ndraft_model = "toml/draft"\ncuda_arch = 9.0\ndataset_dir = "from_toml"\n')
    Path(".env").write_text("SSD_DRAFT_MODEL=dotenv/draft\nSSD_HF_CACHE=from_dotenv\nOTHER=1\n", encoding="utf-8")
    monkeypatch.setenv("SSD_HF_CACHE", "from_environment")
    monkeypatch.setenv("SSD_EAGLE3_SPECFORGE", "environment/head")
    monkeypatch.setenv("SSD_TARGET_MODEL", "")  # empty counts as not set
    found = Settings(dataset_dir=Path("from_argument"))
    assert {name: (str(value), found.origin(name)) for name, value in found} == {
        "hf_cache": ("from_environment", "environment variable SSD_HF_CACHE"),
        "dataset_dir": ("from_argument", "argument dataset_dir"),
        "target_model": ("toml/target", "target_model in ssd_lab.toml"),
        "draft_model": ("dotenv/draft", "SSD_DRAFT_MODEL in .env"),
        "eagle3_specforge": ("environment/head", "environment variable SSD_EAGLE3_SPECFORGE"),
        "cuda_arch": ("9.0", "cuda_arch in ssd_lab.toml"),
    }


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSD_DATASET_DIR", "~/prompts")
    assert Settings().dataset_dir == tmp_path / "prompts"


def test_settings_are_read_once_until_asked_again(monkeypatch: pytest.MonkeyPatch):
    settings.cache_clear()
    assert settings().target_model is None
    monkeypatch.setenv("SSD_TARGET_MODEL", "some/model")
    assert settings().target_model is None
    settings.cache_clear()
    assert settings().target_model == "some/model"
    settings.cache_clear()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('dataset_dri = "x"', ["dataset_dri in ssd_lab.toml", "did you mean dataset_dir?"]),
        ('SSD_HF_CACHE = "x"', ["SSD_HF_CACHE in ssd_lab.toml", "did you mean hf_cache?"]),
        ("[models]\ntarget = 1", ["models in ssd_lab.toml is no setting", "There are hf_cache, dataset_dir"]),
        ("hf_cache = 3", ["hf_cache in ssd_lab.toml is 3", "path"]),
        ('hf_cache = ""', ["must not be empty"]),
        ('hf_cache = "ssd_lab.toml"', ["this is a file: give a folder"]),
        ('target_model = ""', ["target_model in ssd_lab.toml is ''"]),
        ("target_model = 8", ["target_model in ssd_lab.toml is 8", "string"]),
        ('cuda_arch = "Hopper"', ["cuda_arch in ssd_lab.toml is 'Hopper'", "such as 9.0 or gfx942"]),
        ("hf_cache = ", ["ssd_lab.toml cannot be read", 'dataset_dir = "folder"']),
    ],
)
def test_what_is_wrong_in_the_file_is_named(text: str, said: list[str]):
    toml(text)
    with pytest.raises(ConfigError) as error:
        Settings()
    for words in said:
        assert words in str(error.value)


def test_a_wrong_value_names_the_variable_it_came_from(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSD_CUDA_ARCH", "nine")
    with pytest.raises(ConfigError, match="environment variable SSD_CUDA_ARCH is 'nine'"):
        Settings()
    with pytest.raises(ConfigError, match="argument datasets is no setting: did you mean dataset_dir"):
        Settings(cuda_arch="9.0a", datasets="x")


@pytest.mark.parametrize("arch", ["8.6", "10.0", "9.0a", "gfx942", "gfx90a"])
def test_architectures_of_both_makers_are_taken(arch: str):
    assert Settings(cuda_arch=arch).cuda_arch == arch


def test_the_command_shows_values_and_sources(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSD_DATASET_DIR", "prompts")
    monkeypatch.setenv("SSD_DATASETS", "slip")
    toml('draft_model = "toml/draft"')
    shown: Any = CliRunner().invoke(app, ["settings", "--json"])
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    assert document["settings"]["dataset_dir"]["value"] == "prompts"
    assert document["settings"]["dataset_dir"]["source"] == "environment variable SSD_DATASET_DIR"
    assert document["settings"]["draft_model"]["source"] == "draft_model in ssd_lab.toml"
    assert document["settings"]["hf_cache"]["source"] == "default"
    assert document["unknown"] == ["environment variable SSD_DATASETS"]
    table = CliRunner().invoke(app, ["settings"], env={"COLUMNS": "200"}).stdout
    for words in ("toml/draft", "draft_model in ssd_lab.toml", "environment variable SSD_DATASETS is no setting"):
        assert words in table
    toml("draft_model = 1")
    wrong: Any = CliRunner().invoke(app, ["settings"])
    assert wrong.exit_code == 2
    assert "draft_model in ssd_lab.toml is 1" in wrong.stderr
