"""GGUF files as llama.cpp's converter writes them: the same model as from the tensors they were made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from testing_models import random_tensors, tiny_config, trained_tokenizer, write_gguf

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, from_tensors, load_model
from ssd_lab.rounds.rows import causal_step_at

VOCAB = trained_tokenizer().get_vocab_size()
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@torch.inference_mode()
def logits_of(model: LoadedModel) -> torch.Tensor:
    ids = torch.randint(0, VOCAB, (1, 40), generator=torch.Generator().manual_seed(0))
    cache = PagedKVCache(model.config, 6, 8, model.dtype, "cpu")
    step = causal_step_at(ids, [0], [[3, 1, 2, 4, 5]], 8)
    return model.decoder.logits(model.decoder.forward(step, cache)[0])


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_gguf_file_gives_the_logits_of_its_tensors(tmp_path: Path, family: str, kind: str) -> None:
    config = tiny_config(VOCAB, model_type=family, qk_norm=family == "qwen3", tie_embeddings=family == "llama")
    quantised = write_gguf(tmp_path / "model.gguf", config, random_tensors(config), kind)
    expected = from_tensors(config, quantised, dtype="float32")
    assert torch.equal(logits_of(load_model(tmp_path / "model.gguf", dtype="float32")), logits_of(expected))


def test_scaled_rotations_are_read(tmp_path: Path) -> None:
    from ssd_lab.kernels.rope import inverse_frequencies

    config = tiny_config(VOCAB, rope_scaling=LLAMA3, rope_theta=5e5)
    divisors = inverse_frequencies(16, 5e5, None) / inverse_frequencies(16, 5e5, LLAMA3)
    tensors = random_tensors(config)
    write_gguf(tmp_path / "model.gguf", config, tensors, divisors=divisors.tolist())
    expected = logits_of(from_tensors(config, tensors, dtype="float32"))
    torch.testing.assert_close(
        logits_of(load_model(tmp_path / "model.gguf", dtype="float32")), expected, atol=1e-4, rtol=0
    )


def test_the_tokenizer_comes_with_the_file(tmp_path: Path) -> None:
    config = tiny_config(VOCAB)
    write_gguf(tmp_path / "model.gguf", config, random_tensors(config))
    tokenizer, original = load_model(tmp_path / "model.gguf").tokenizer, trained_tokenizer()
    assert tokenizer is not None
    text = "naïve 🙂 <think>日本 x = 7<|end|>"
    assert tokenizer.encode(text) == original.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text.removesuffix("<|end|>")
    assert tokenizer.eos_token_ids == (original.token_to_id("<|end|>"),)


def test_a_left_over_tensor_is_named(tmp_path: Path) -> None:
    config = tiny_config(VOCAB)
    write_gguf(tmp_path / "model.gguf", config, random_tensors(config), extra={"blk.0.ffn_exps": torch.ones(2, 2)})
    with pytest.raises(ModelLoadError, match=r"does not explain: blk\.0\.ffn_exps"):
        load_model(tmp_path / "model.gguf")


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    config = tiny_config(VOCAB)
    tensors = random_tensors(config)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    write_gguf(tmp_path / "model.gguf", config, tensors)
    with pytest.raises(ModelLoadError, match=r"lacks the tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(tmp_path / "model.gguf")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    config = tiny_config(VOCAB)
    write_gguf(tmp_path / "whole.gguf", config, random_tensors(config))
    whole = (tmp_path / "whole.gguf").read_bytes()
    for length in (0, 10, len(whole) // 4, len(whole) - 200):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(ModelLoadError, match="truncated or no GGUF"):
            load_model(tmp_path / "cut.gguf")
