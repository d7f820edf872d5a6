"""Inflated models as checkpoints and by name: written, resumed, loaded here and by transformers, run by the engine."""

from __future__ import annotations

import json
import shutil
import weakref
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from inflated_models import TOLERANCE, difference, logits_of, widened
from typer.testing import CliRunner

import ssd_lab
from ssd_lab import demo
from ssd_lab.bench.names import require_local, resolve_model
from ssd_lab.cli.main import app
from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.models.files.checkpoint import read_config
from ssd_lab.models.inflate.folder import write_inflated
from ssd_lab.models.inflate.geometry import Geometry
from ssd_lab.models.inflate.weights import InflatedWeights
from ssd_lab.models.loader import LoadedModel, load_inflated, load_model
from ssd_lab.settings import Settings

SHAPE = Geometry(
    "a test's shape",
    "nobody/none",
    widened(
        read_config(demo.TARGET), hidden_size=768, num_layers=7, num_heads=16, num_kv_heads=8, head_dim=128,
        mlp_size=1200, vocab_size=4500, max_positions=512,
    ),
)  # fmt: skip
SHARD_BYTES = 30_000_000
ENGINE: dict[str, Any] = {
    "dtype": "float32", "device": "cpu", "bitwise": False, "max_model_len": 128, "threads": 1, "progress": False,
}  # fmt: skip
PROMPTS = ["Why is teamwork important?", "def add(a, b):"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inflated") / "wide"
    write_inflated(SHAPE, "bundled-draft", folder, dtype="float32", shard_bytes=SHARD_BYTES)
    return folder


@pytest.fixture(scope="module")
def draft() -> LoadedModel:
    return load_model(demo.DRAFT, dtype="float32")


def tokens(model: LoadedModel) -> list[int]:
    assert model.tokenizer is not None
    return model.tokenizer.encode("Two plus three is five, and five plus five is ten.")


def test_the_folder_loads_as_the_model_made_in_memory(written: Path, draft: LoadedModel) -> None:
    ids = tokens(draft)
    from_disk = load_model(written, dtype="float32", bitwise=False)
    in_memory = load_inflated(SHAPE, "bundled-draft", dtype="float32", bitwise=False)
    assert torch.equal(logits_of(from_disk, ids), logits_of(in_memory, ids))
    assert difference(logits_of(draft, ids), logits_of(from_disk, ids)) < TOLERANCE
    assert draft.tokenizer is not None and from_disk.tokenizer is not None
    assert from_disk.tokenizer.fingerprint == draft.tokenizer.fingerprint
    assert from_disk.tokenizer.eos_token_ids == draft.tokenizer.eos_token_ids
    chat = [{"role": "user", "content": "Hello"}]
    assert from_disk.tokenizer.apply_chat(chat) == draft.tokenizer.apply_chat(chat)
    assert in_memory.source is None and from_disk.config == in_memory.config


def test_transformers_loads_the_folder_and_computes_the_small_models_function(
    written: Path, draft: LoadedModel
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = tokens(draft)
    with torch.inference_mode():
        wide = AutoModelForCausalLM.from_pretrained(written, dtype=torch.float32)(torch.tensor([ids])).logits[0]
        small = AutoModelForCausalLM.from_pretrained(demo.DRAFT, dtype=torch.float32)(torch.tensor([ids])).logits[0]
    assert difference(small, wide) < TOLERANCE
    assert torch.equal(wide.argmax(-1), small.argmax(-1))
    assert draft.tokenizer is not None
    text = draft.tokenizer.decode(ids)
    assert AutoTokenizer.from_pretrained(written)(text, add_special_tokens=False)["input_ids"] == ids


def test_shards_keep_to_their_size_and_the_index_names_every_tensor(written: Path) -> None:
    files = sorted(written.glob("*.safetensors"))
    assert len(files) > 5 and not list(written.glob("*.partial"))
    assert all(file.stat().st_size < SHARD_BYTES + 10_000 for file in files)
    index = json.loads((written / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert index["metadata"]["total_size"] == read_config(written).num_parameters * 4
    assert json.loads((written / "config.json").read_text(encoding="utf-8"))["inflated"]["source"] == "bundled-draft"


def test_an_interrupted_write_goes_on_where_it_stopped(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, done = InflatedWeights.read, 0

    def stops_after_thirty(self: InflatedWeights, name: str) -> torch.Tensor:
        nonlocal done
        done += 1
        if done > 30:
            raise KeyboardInterrupt
        return read(self, name)

    monkeypatch.setattr(InflatedWeights, "read", stops_after_thirty)
    with pytest.raises(KeyboardInterrupt):
        write_inflated(SHAPE, "bundled-draft", tmp_path / "wide", dtype="float32", shard_bytes=SHARD_BYTES)
    monkeypatch.undo()
    kept = list((tmp_path / "wide").glob("*.safetensors"))
    with pytest.raises(ModelLoadError):
        load_model(tmp_path / "wide")
    again = write_inflated(SHAPE, "bundled-draft", tmp_path / "wide", dtype="float32", shard_bytes=SHARD_BYTES)
    assert 0 < again.resumed == len(kept) < again.shards
    for file in written.iterdir():
        assert (tmp_path / "wide" / file.name).read_bytes() == file.read_bytes(), file.name


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, living = InflatedWeights.read, weakref.WeakSet[torch.Tensor]()

    def counted(self: InflatedWeights, name: str) -> torch.Tensor:
        assert len(living) == 0, name
        tensor = read(self, name)
        living.add(tensor)
        return tensor

    monkeypatch.setattr(InflatedWeights, "read", counted)
    write_inflated(SHAPE, "bundled-draft", tmp_path / "wide", dtype="bfloat16")


def test_what_cannot_be_written_is_refused(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not empty and holds no inflated model"):
        write_inflated(SHAPE, "bundled-draft", tmp_path)
    with pytest.raises(ConfigError, match=r"holds another inflated model \(its source, .*fingerprint"):
        write_inflated(SHAPE, "bundled-target", written, dtype="float32", shard_bytes=SHARD_BYTES)
    with pytest.raises(ConfigError, match="dtype 'float16' is not written"):
        write_inflated(SHAPE, "bundled-draft", tmp_path / "half", dtype="float16")
    with pytest.raises(ModelLoadError, match=r"in float16 is not possible.*take bfloat16 or float32"):
        load_inflated(SHAPE, "bundled-draft", dtype="float16")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 9 * 10**8, 10**8))
    with pytest.raises(ConfigError, match=r"0\.\d GB are to be written to .* and 0\.1 GB are free"):
        write_inflated(SHAPE, "bundled-draft", tmp_path / "full")
    assert not list((tmp_path / "full").glob("*.safetensors"))


@pytest.mark.full
@pytest.mark.parametrize("strategy", ["autoregressive", "sync_chain"])
def test_an_inflated_pair_writes_the_text_of_the_small_target(strategy: str) -> None:
    options: dict[str, Any] = {"strategy": strategy, **ENGINE} | ({"k": 3} if strategy == "sync_chain" else {})
    params = ssd_lab.SamplingParams(max_tokens=24)
    with ssd_lab.LLM(**options) as llm:
        small = llm.run(PROMPTS, params)
    names = ("bundled-target", "bundled-draft")
    target, draft = (load_inflated(SHAPE, name, dtype="float32", bitwise=False) for name in names)
    with ssd_lab.LLM(target, draft, **options) as llm:
        wide = llm.run(PROMPTS, params)
    assert [output.token_ids for output in wide.outputs] == [output.token_ids for output in small.outputs]
    assert wide.metrics.tokens_per_round == small.metrics.tokens_per_round


@pytest.mark.full
def test_a_name_is_enough_even_for_a_draft_in_a_process_of_its_own() -> None:
    params = ssd_lab.SamplingParams(max_tokens=12)
    with ssd_lab.LLM(str(demo.DRAFT), strategy="autoregressive", **ENGINE) as llm:
        expected = llm.run(PROMPTS[0], params).outputs[0].token_ids
    name = "inflated:smollm2-135m:bundled-draft"
    with ssd_lab.LLM(name, name, strategy="async_tree", k=3, f=1, draft_link="process", **ENGINE) as llm:
        result = llm.run(PROMPTS[0], params)
    assert result.outputs[0].token_ids == expected
    assert result.metrics.tokens_per_round > 2  # the draft is the target


def test_names_of_inflated_models_are_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    settings = Settings()
    for name in ("inflated:llama-8b:bundled-target", f"inflated:llama-1b:{demo.DRAFT}"):
        assert require_local(resolve_model(name, settings=settings), settings=settings) == name
    with pytest.raises(ModelLoadError, match="'llama-9b' is not known: there are llama-1b"):
        load_model("inflated:llama-9b:bundled-target")
    with pytest.raises(ModelLoadError, match="names no small model: write inflated:GEOMETRY:SOURCE"):
        load_model("inflated:llama-8b")
    with pytest.raises(ModelLoadError, match="does not exist"):
        require_local(f"inflated:llama-8b:{tmp_path}/none", settings=settings)


def test_the_command_lists_and_writes(tmp_path: Path) -> None:
    listed = json.loads(CliRunner().invoke(app, ["models", "inflate", "--list", "--json"]).stdout)
    assert listed["llama-8b"]["parameters"] == 8_030_261_248 and listed["qwen3-32b"]["num_layers"] == 64
    shown = CliRunner().invoke(app, ["models", "inflate", "--list"]).stdout
    assert "llama-70b" in shown and "smollm2-135m has room for --from bundled-draft only" in shown
    arguments = [
        "models",
        "inflate",
        "--geometry",
        "smollm2-135m",
        "--from",
        "bundled-draft",
        "--out",
        str(tmp_path / "m"),
    ]
    shown = CliRunner().invoke(app, [*arguments, "--json"])
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    assert document["num_parameters"] == 134_515_008 and document["resumed"] == 0 and not document["exact"]
    assert "1 of them there already" in " ".join(CliRunner().invoke(app, arguments).stdout.split())
    assert read_config(tmp_path / "m").num_layers == 30


def test_the_command_says_what_is_missing() -> None:
    shown = CliRunner().invoke(app, ["models", "inflate", "--geometry", "llama-8b"])
    assert shown.exit_code == 2 and "--out FOLDER" in shown.stderr
    shown = CliRunner().invoke(app, ["models", "inflate", "--geometry", "llama-9b", "--out", "unused"])
    assert shown.exit_code == 2 and "qwen3-32b" in shown.stderr
