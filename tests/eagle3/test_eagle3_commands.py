"""`ssd-lab train eagle3` and `train draft` for small targets of both kinds: a folder that loads, a card, resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ssd_lab.cli.main import app
from ssd_lab.models.eagle3.loader import load_eagle3
from ssd_lab.models.loader import load_model
from ssd_lab.training.hf_files import load_hf
from ssd_lab.training.preparing import held_out


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"say {n} {n * 7}"}) + "\n" for n in range(24)), encoding="utf-8")
    return path


def train(*arguments: str) -> dict:
    result = CliRunner().invoke(app, ["train", *arguments, "--json"])
    document = json.loads(result.stdout)
    assert result.exit_code == 0, document
    return document


def short(target: str, prompts: Path, output: Path, *more: str) -> list[str]:
    return [
        "--target", target, "--prompts", str(prompts), "--output", str(output), "--steps", "3", "--passes", "1",
        "-n", "6", "--max-length", "48", "--k", "2", "--device", "cpu", *more,
    ]  # fmt: skip


def test_an_eagle3_head_for_a_llama(tiny_pair, prompts: Path, tmp_path: Path) -> None:
    wanted = short(tiny_pair.target, prompts, tmp_path, "--draft-vocab", "50", "--unroll", "2")
    first = train("eagle3", *wanted)
    assert 1 <= first["tokens_per_round"] <= 3
    head = load_eagle3(tmp_path, load_model(tiny_pair.target, dtype="float32"))
    assert head.vocabulary.size == 50 and head.config.feature_layers == (0, 1, 2)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "prompts.jsonl" in card and "50 of the target's tokens" in card and "Tokens per round" in card
    assert train("eagle3", *wanted) == first  # everything is there: answers and checkpoint are taken up


def test_settings_of_another_run_are_refused_in_the_same_folder(tiny_pair, prompts: Path, tmp_path: Path) -> None:
    train("eagle3", *short(tiny_pair.target, prompts, tmp_path, "--unroll", "2"))
    for changed in (["--unroll", "3"], ["--seed", "1"]):
        result = CliRunner().invoke(app, ["train", "eagle3", *short(tiny_pair.target, prompts, tmp_path, *changed)])
        assert result.exit_code == 2


def test_a_small_draft(tiny_pair, prompts: Path, tmp_path: Path) -> None:
    document = train("draft", *short(tiny_pair.target, prompts, tmp_path))
    assert document["k"] == 2
    draft = load_model(tmp_path, dtype="float32")
    assert (draft.config.hidden_size, draft.config.num_layers, draft.config.num_heads) == (32, 1, 2)
    assert draft.tokenizer is not None and "A small draft" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.quick("qwen3")
@pytest.mark.parametrize("kind", ["llama3", "qwen3"])
def test_targets_of_every_kind_are_read_as_transformers_reads_them(tiny_pair, kind: str, tmp_path: Path) -> None:
    """Scaled rotations and an output head of its own; normed q and k heads."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(1)
    sizes = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 259, "max_position_embeddings": 256, "initializer_range": 0.2,
        "eos_token_id": 258,
    }  # fmt: skip
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    if kind == "qwen3":
        Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=32, tie_word_embeddings=True)).save_pretrained(tmp_path)
    else:
        LlamaForCausalLM(
            LlamaConfig(**sizes, rope_scaling=scaling, rope_theta=5e5, tie_word_embeddings=False)
        ).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tiny_pair.target) / file, tmp_path / file)
    target = load_hf(tmp_path, device="cpu", dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.randint(0, 250, (40,))
    features = {0: torch.empty(0), 1: torch.empty(0)}
    with torch.no_grad():
        hidden = target.hidden(
            tokens, torch.arange(40), torch.tensor([0, 40], dtype=torch.int32), 40, features=features
        )
        expected = reference(tokens[None], output_hidden_states=True)
    torch.testing.assert_close(target.logits(hidden), expected.logits[0], atol=2e-4, rtol=0)
    for layer in (0, 1):
        torch.testing.assert_close(features[layer], expected.hidden_states[layer][0], atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--feature-layer", "9"], "feature layers"),
        (["--draft-vocab", "100000"], "draft vocabulary"),
        (["--target", "/nowhere/at/all"], "nowhere"),
    ],
)
def test_what_cannot_be_is_said(tiny_pair, prompts: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    wanted = [*short(tiny_pair.target, prompts, tmp_path), *arguments]
    result = CliRunner().invoke(app, ["train", "eagle3", *wanted, "--json"])
    assert result.exit_code == 2
    assert message in json.loads(result.stdout)["error"]["message"]


def test_an_incomplete_target_is_refused(tiny_pair, prompts: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_pair.target, tmp_path / "target")
    tensors = load_file(tmp_path / "target" / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "target" / "model.safetensors")
    arguments = short(str(tmp_path / "target"), prompts, tmp_path / "head")
    result = CliRunner().invoke(app, ["train", "eagle3", *arguments, "--json"])
    assert result.exit_code == 2 and "model.norm.weight" in result.stdout


def test_some_prompts_are_held_out() -> None:
    kept, tests = held_out([f"prompt {n}" for n in range(100)])
    assert len(tests) == 5 and len(kept) == 95 and not set(kept) & set(tests)
    kept, tests = held_out(["a", "b", "c"])
    assert kept == ["b"] and tests == ["a", "c"]
