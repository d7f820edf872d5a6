"""A hub id: what the cache holds whole is taken, the rest is asked for, and what is missing is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files.hub import from_hub
from ssd_lab.models.loader import load_model
from ssd_lab.settings import settings

NAME = "someone/tiny"


class Hub:
    """Stands for the hub: hands out a whole checkpoint as the snapshot `new`, or fails; counts how often."""

    def __init__(self, cache: Path, source: Path) -> None:
        self.folder = cache / "models--someone--tiny"
        self.source = source
        self.asked = 0
        self.error: Exception | None = None
        self.has = {file.name for file in source.iterdir()}

    def snapshot(self, commit: str, *files: str, main: bool = True) -> Path:
        """A snapshot in the cache with these files of the checkpoint."""
        place = self.folder / "snapshots" / commit
        place.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(self.source / file, place / file)
        if main:
            (self.folder / "refs").mkdir(exist_ok=True)
            (self.folder / "refs" / "main").write_text(commit)
        return place

    def download(self, name: str, **options: object) -> str:
        assert name == NAME and not options.get("local_files_only")
        self.asked += 1
        if self.error is not None:
            raise self.error
        return str(self.snapshot("new", *self.has))


@pytest.fixture
def hub(tiny_pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty cache, and a hub that has the tiny target."""
    monkeypatch.setenv("SSD_HF_CACHE", str(tmp_path / "hub"))
    settings.cache_clear()
    made = Hub(tmp_path / "hub", Path(tiny_pair.target))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.download)
    yield made
    settings.cache_clear()


WHOLE = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def sharded(place: Path, *present: str) -> None:
    """As a download of two shards leaves a folder of which only some have come."""
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": dict(zip(["model.norm.weight", "lm_head.weight"], names, strict=True))}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in present:
        (place / name).write_text("")


def test_a_whole_snapshot_is_taken_without_the_network(hub: Hub) -> None:
    place = hub.snapshot("old", *WHOLE)
    assert (from_hub(NAME), hub.asked) == (place, 0)


def only_the_config(hub: Hub) -> None:
    hub.snapshot("old", "config.json", "tokenizer.json", "tokenizer_config.json")


def all_but_the_tokenizer(hub: Hub) -> None:
    hub.snapshot("old", "config.json", "model.safetensors")


def one_shard_of_two(hub: Hub) -> None:
    sharded(hub.snapshot("old", "config.json", "tokenizer.json"), "model-00001-of-00002.safetensors")


def a_shard_before_the_index(hub: Hub) -> None:
    (hub.snapshot("old", "config.json", "tokenizer.json") / "model-00001-of-00002.safetensors").write_text("")


def a_link_to_a_blob_that_is_gone(hub: Hub) -> None:
    place = hub.snapshot("old", *WHOLE)
    (place / "model.safetensors").unlink()
    (place / "model.safetensors").symlink_to(hub.folder / "blobs" / "abc")


def a_blob_that_is_still_incomplete(hub: Hub) -> None:
    hub.snapshot("old", "config.json", "tokenizer.json")
    (hub.folder / "blobs").mkdir()
    (hub.folder / "blobs" / "abc.incomplete").write_text("half")


def weights_in_a_format_that_is_not_read(hub: Hub) -> None:
    (hub.snapshot("old", "config.json", "tokenizer.json") / "pytorch_model.bin").write_text("")


def a_reference_to_a_snapshot_that_is_not_there(hub: Hub) -> None:
    hub.snapshot("old", *WHOLE)
    (hub.folder / "refs" / "main").write_text("new")


def an_older_snapshot_beside_half_of_the_newest(hub: Hub) -> None:
    hub.snapshot("old", *WHOLE)
    hub.snapshot("newer", "config.json")


@pytest.mark.parametrize(
    "left",
    [
        only_the_config, all_but_the_tokenizer, one_shard_of_two, a_shard_before_the_index,
        a_link_to_a_blob_that_is_gone, a_blob_that_is_still_incomplete, weights_in_a_format_that_is_not_read,
        a_reference_to_a_snapshot_that_is_not_there, an_older_snapshot_beside_half_of_the_newest,
    ],
)  # fmt: skip
def test_half_of_a_snapshot_is_downloaded(hub: Hub, left) -> None:
    left(hub)
    assert (from_hub(NAME).name, hub.asked) == ("new", 1)
    assert load_model(NAME).config.vocab_size == 259


def test_what_stays_missing_is_named(hub: Hub) -> None:
    hub.has = {"config.json", "tokenizer.json"}
    with pytest.raises(ModelLoadError, match=r"still lacks weights \(\*\.safetensors\): the repository has no such"):
        from_hub(NAME)


def test_offline_says_what_the_cache_lacks(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    one_shard_of_two(hub)
    hub.error = OfflineModeIsEnabled("offline")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    says = r"HF_HUB_OFFLINE is set, so nothing is downloaded.*snapshot old lacks model-00002-of-00002\.safetensors"
    with pytest.raises(ModelLoadError, match=says):
        from_hub(NAME)


def test_a_client_that_returns_half_a_snapshot_offline_is_not_believed(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_the_config(hub)
    hub.has = set()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelLoadError, match=r"still lacks config\.json, weights .*HF_HUB_OFFLINE is set"):
        from_hub(NAME)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (GatedRepoError, "it is gated; ask for access"),
        (RepositoryNotFoundError, "no such repository, or it is private"),
        (LocalEntryNotFoundError, "it: the hub cannot be reached from here; check the network"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(hub: Hub, kind: type[Exception], says: str) -> None:
    hub.error = kind.__new__(kind)
    with pytest.raises(ModelLoadError, match=says):
        from_hub(NAME)


def test_without_the_hub_an_older_whole_snapshot_will_do(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    an_older_snapshot_beside_half_of_the_newest(hub)
    hub.error = ConnectionError("no route")
    assert from_hub(NAME).name == "old"
    assert "check the network" in caplog.text and "snapshot old" in caplog.text
