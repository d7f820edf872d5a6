"""`--geometry`: a small one runs and gives the bundled pair's text; what does not fit is refused in words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from typer.testing import Result

from ssd_lab import demo
from ssd_lab.bench import inflated
from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.inflated import check_fits
from ssd_lab.bench.support import check_supported, find_checkpoint
from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.models.files.checkpoint import read_config
from ssd_lab.models.inflate.geometry import GEOMETRIES, Geometry, find_geometry

Invoke = Callable[..., Result]
LENGTHS = [
    "--numseqs", "1", "--input_len", "12", "--output_len", "6", "--warmup", "0", "--block_sz", "16",
    "--max_model_len", "64", "--threads", "1", "--dtype", "float32", "--device", "cpu", "--json",
]  # fmt: skip


def config(target: str, draft: str | None = None) -> BenchConfig:
    return BenchConfig(
        target=f"inflated:{target}:bundled-target", dtype="bfloat16", device="cpu",
        strategy="sync_chain" if draft else "autoregressive",
        draft=None if draft is None else f"inflated:{draft}:bundled-draft",
    )  # fmt: skip


@pytest.fixture
def wider(monkeypatch: pytest.MonkeyPatch) -> str:
    """A shape with twice the bundled target's width, and two layers more."""
    small = read_config(demo.TARGET)
    shape = dataclasses.replace(
        small, hidden_size=2 * small.hidden_size, mlp_size=2 * small.mlp_size, num_layers=small.num_layers + 2,
        num_heads=2 * small.num_heads, num_kv_heads=2 * small.num_kv_heads, vocab_size=small.vocab_size + 64,
    )  # fmt: skip
    monkeypatch.setitem(GEOMETRIES, "wider", Geometry("wider", "nobody/wider", shape))
    return "wider"


@pytest.mark.full
def test_a_geometry_runs_and_its_text_is_the_bundled_models(bench: Invoke, wider: str):
    runs = [
        ["--models", "bundled"], ["--geometry", wider],
        ["--geometry", wider, "--spec", "--k", "2", "--draft", wider],
    ]  # fmt: skip
    digests, accepted = [], []
    for models in runs:
        result = bench(*models, *LENGTHS)
        assert result.exit_code == 0, result.output
        (request,) = json.loads(result.stdout)["datasets"]["gsm8k"]["repeats"][0]["requests"]
        digests.append(request["digest"])
        accepted.append(request["accepted"])
    assert digests[1:] == digests[:1] * 2
    assert accepted[2] > 0  # the inflated draft guesses as the small one does


def fit(monkeypatch: pytest.MonkeyPatch, free_gigabytes: float, *names: str) -> None:
    monkeypatch.setattr(inflated, "free_memory_bytes", lambda: int(free_gigabytes * 1e9))
    wanted = config(*names)
    check_fits(wanted, check_supported(wanted))


def test_weights_that_fit_are_let_through(monkeypatch: pytest.MonkeyPatch):
    fit(monkeypatch, 31, "llama-8b", "llama-1b")  # 16.1 + 2.5 GB, of 31 GB six tenths
    fit(monkeypatch, 240, "llama-70b", "llama-1b")


def test_weights_that_do_not_fit_are_refused_with_what_would(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError) as caught:
        fit(monkeypatch, 30, "llama-8b", "llama-1b")
    words = str(caught.value)
    assert "llama-8b with llama-1b take 18.5 GB" in words and "room for 18.0 GB" in words
    assert "llama-1b, llama-3b, llama-8b" in words and "--models bundled" in words
    with pytest.raises(ConfigError, match="several share them with --gpus"):
        fit(monkeypatch, 80, "llama-70b")


def test_on_a_gpu_its_own_memory_counts(monkeypatch: pytest.MonkeyPatch):
    wanted = config("llama-70b").model_copy(update={"device": "cuda"})
    monkeypatch.setattr(inflated, "resolve_device", torch.device)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=int(80e9)))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    with pytest.raises(ConfigError, match=r"take 141\.1 GB and a GPU has room for 72\.0 GB"):
        check_fits(wanted, check_supported(wanted))


def test_without_a_gpu_a_published_shape_is_not_tried_unasked(bench: Invoke):
    result = bench("--geometry", "llama-8b", *(flag for flag in LENGTHS if flag not in ("--device", "cpu")))
    assert result.exit_code == 2
    assert "no CUDA GPU is here" in result.stderr and "--device cpu" in result.stderr


def test_other_programs_cannot_read_what_is_made_in_memory():
    wanted = config("llama-1b").model_copy(update={"peers": ("transformers",)})
    with pytest.raises(ConfigError, match="leave --peer out"):
        check_supported(wanted)


def test_a_missing_checkpoint_offers_its_shape_where_a_gpu_holds_it(monkeypatch: pytest.MonkeyPatch):
    name = find_geometry("llama-8b").repository
    with pytest.raises(ModelLoadError) as without:
        find_checkpoint(name)
    assert "--geometry" not in str(without.value)
    properties = SimpleNamespace(total_memory=int(80e9))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    with pytest.raises(ModelLoadError, match=r"`--models bundled`.*or `--geometry llama-8b`"):
        find_checkpoint(name)
