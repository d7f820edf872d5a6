"""Sizes and names to hub ids, snapshots and folders, on a folder laid out as the hub's cache is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ssd_lab import demo
from ssd_lab.bench.names import require_local, resolve_model
from ssd_lab.errors import ModelLoadError
from ssd_lab.settings import Settings


class HubCache:
    """Writes repositories as the hub's client does: content in blobs, a snapshot of relative links, a ref to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, repository: str, commit: str, files: dict[str, str], *, main: bool = True) -> Path:
        home = self.folder / ("models--" + repository.replace("/", "--"))
        snapshot = home / "snapshots" / commit
        for part in (home / "blobs", home / "refs", snapshot):
            part.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            blob = home / "blobs" / f"{commit}-{name}"
            blob.write_text(content, encoding="utf-8")
            (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
        if main:
            (home / "refs" / "main").write_text(commit, encoding="utf-8")
        return snapshot


WHOLE = {"config.json": "{}", "model.safetensors": "weights"}
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
SHARDED = {
    "config.json": "{}",
    "model.safetensors.index.json": json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))}),
    **dict.fromkeys(SHARDS, "weights"),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SSD_")]:
        monkeypatch.delenv(name)
    (tmp_path / "hub").mkdir()
    return HubCache(tmp_path / "hub")


@pytest.fixture
def settings(cache: HubCache) -> Settings:
    return Settings(hf_cache=cache.folder)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("1", "meta-llama/Llama-3.2-1B-Instruct"),
        ("3", "meta-llama/Llama-3.2-3B-Instruct"),
        ("8", "meta-llama/Llama-3.1-8B-Instruct"),
        ("8.0", "meta-llama/Llama-3.1-8B-Instruct"),
        ("70B", "meta-llama/Llama-3.1-70B-Instruct"),
        ("qwen3-4b", "Qwen/Qwen3-4B"),
        ("some/other-model", "some/other-model"),
    ],
)
def test_sizes_and_names_are_the_references(size: str, expected: str, settings: Settings):
    assert resolve_model(size, settings=settings) == expected


def test_the_snapshot_of_main_is_found_through_its_links(settings: Settings, cache: HubCache):
    cache.add("Qwen/Qwen3-0.6B", "c0ffee", WHOLE, main=False)
    main = cache.add("Qwen/Qwen3-0.6B", "ab12cd", SHARDED)
    found = resolve_model("Qwen/Qwen3-0.6B", settings=settings)
    assert found == str(main)
    assert Path(found, SHARDS[0]).read_text(encoding="utf-8") == "weights"
    home = cache.folder / "models--Qwen--Qwen3-0.6B"
    assert resolve_model(str(home), settings=settings) == str(main)  # the repository's folder, too
    assert resolve_model(str(main), settings=settings) == str(main)
    assert require_local(found, settings=settings) == found


def test_a_snapshot_that_is_not_whole_is_passed_over(settings: Settings, cache: HubCache):
    old = cache.add("Qwen/Qwen3-4B", "01d", WHOLE)
    broken = cache.add("Qwen/Qwen3-4B", "4e1", SHARDED)
    assert resolve_model("Qwen/Qwen3-4B", settings=settings) == str(broken)
    (broken / SHARDS[1]).resolve().unlink()  # the link stays, its blob is gone
    assert resolve_model("Qwen/Qwen3-4B", settings=settings) == str(old)


def test_without_a_ref_the_newest_whole_snapshot_is_taken(settings: Settings, cache: HubCache):
    older = cache.add("Qwen/Qwen3-4B", "aaa", WHOLE, main=False)
    newer = cache.add("Qwen/Qwen3-4B", "bbb", WHOLE, main=False)
    os.utime(older, (1, 1))
    assert resolve_model("Qwen/Qwen3-4B", settings=settings) == str(newer)


def test_the_hubs_default_cache_is_used_when_no_other_is_set(cache: HubCache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache.folder))
    snapshot = cache.add("Qwen/Qwen3-8B", "abc", WHOLE)
    assert resolve_model("Qwen/Qwen3-8B", settings=Settings()) == str(snapshot)


def test_folders_files_and_the_bundled_pair(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "Qwen" / "Qwen3-4B"
    folder.mkdir(parents=True)
    assert resolve_model("Qwen/Qwen3-4B", settings=settings) == "Qwen/Qwen3-4B"  # a folder here goes first
    assert resolve_model("~/Qwen", settings=settings) == str(tmp_path / "Qwen")
    (tmp_path / "small.gguf").touch()
    assert resolve_model("small.gguf", settings=settings) == "small.gguf"
    (tmp_path / "8").mkdir()
    assert resolve_model("8", settings=settings) == "meta-llama/Llama-3.1-8B-Instruct"  # a size is never a folder
    assert resolve_model("bundled", settings=settings) == str(demo.TARGET)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("7", "size 7 is none of the llama family: there are 1, 3, 8, 70"),
        ("0.6", "size 0.6 is none of the llama family (the qwen family has one)"),
        ("big", "'big' is neither a size (1, 3, 8, 70), nor a folder, nor a .gguf file, nor a hub id (owner/name)"),
        ("", "'' is neither a size"),
        ("./none", "none does not exist"),
        ("a/b/c", "a/b/c does not exist"),
        ("none.gguf", "none.gguf does not exist"),
        ("a.txt", "a.txt is a file: a model is a folder or a .gguf file"),
    ],
)
def test_what_is_no_model_is_refused(name: str, said: str, settings: Settings, tmp_path: Path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(ModelLoadError) as error:
        resolve_model(name, settings=settings)
    assert said in str(error.value)


def test_a_missing_model_says_what_is_missing_and_what_works(settings: Settings, cache: HubCache, tmp_path: Path):
    cache.add("Qwen/Qwen3-0.6B", "abc", WHOLE)
    wanted = resolve_model("8", settings=settings)
    with pytest.raises(ModelLoadError) as error:
        require_local(wanted, settings=settings)
    for words in (
        "meta-llama/Llama-3.1-8B-Instruct is not on this machine",
        f"{cache.folder} has no models--meta-llama--Llama-3.1-8B-Instruct",
        "SSD_HF_CACHE",
        "What works here: `--models bundled`, or one of Qwen/Qwen3-0.6B",
    ):
        assert words in str(error.value)

    snapshot = cache.add(wanted, "0123456789", SHARDED)
    (snapshot / SHARDS[1]).unlink()
    with pytest.raises(ModelLoadError, match=f"its snapshot 01234567 lacks {SHARDS[1]}"):
        require_local(wanted, settings=settings)
    (snapshot / "model.safetensors.index.json").resolve().write_text("{", encoding="utf-8")
    with pytest.raises(ModelLoadError, match=r"index.json \(damaged\): download it again"):
        resolve_model(str(snapshot.parent.parent), settings=settings)

    with pytest.raises(ModelLoadError, match="hub may be the cache that is meant"):
        require_local(wanted, settings=Settings(hf_cache=tmp_path))
