"""Weights, config and tokenizer of a GGUF file (llama.cpp's format), for Llama-family and Qwen3 models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.gguf_tokenizer import GgufTokenizer
from ssd_lab.models.tokenizer import Tokenizer

_LAYER_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOP_PARTS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_ROPE_DIVISORS = "rope_freqs.weight"


class GgufFile:
    """A GGUF file as a checkpoint: names and shapes as in the Hugging Face checkpoint it came from."""

    def __init__(self, path: Path) -> None:
        import gguf

        try:
            self._reader = gguf.GGUFReader(path)
        except Exception as error:  # the library raises whatever it stumbles over
            raise ModelLoadError(f"{path} is truncated or no GGUF file ({error}): download it again") from error
        self._path = path
        self._dequantize = gguf.quants.dequantize
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self._architecture = self._field("general.architecture")
        self.config = self._read_config()
        self._gguf_name = self._name_map()

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._gguf_name)

    def read(self, name: str) -> torch.Tensor:
        """One tensor, dequantised to float32."""
        tensor = self._tensors[self._gguf_name[name]]
        try:
            values = self._dequantize(tensor.data, tensor.tensor_type)
        except (NotImplementedError, ValueError) as error:
            raise ModelLoadError(
                f"{self._path}: tensor {tensor.name} cannot be read as {tensor.tensor_type.name}: {error}"
            ) from error
        result = torch.from_numpy(np.array(values, dtype=np.float32))
        heads = {"q_proj": self.config.num_heads, "k_proj": self.config.num_kv_heads}
        part = re.search(r"self_attn\.(q_proj|k_proj)\.", name)
        if part and self._architecture == "llama":
            return _unpermute(result, heads[part.group(1)])
        return result

    def tokenizer(self) -> Tokenizer:
        """The tokenizer stored in the file."""
        return GgufTokenizer(self._field, str(self._path)).read()

    def _field(self, key: str, *default: Any) -> Any:
        field = self._reader.get_field(key)
        if field is None:
            if default:
                return default[0]
            raise ModelLoadError(f"{self._path} lacks the entry {key}: is it a language model?")
        return field.contents()

    def _read_config(self) -> ModelConfig:
        kind = self._architecture
        if kind not in ("llama", "qwen3"):
            raise ModelLoadError(f"{self._path}: architecture {kind!r} is not supported: llama and qwen3 are")
        hidden, heads = self._field(f"{kind}.embedding_length"), self._field(f"{kind}.attention.head_count")
        end = self._field("tokenizer.ggml.eos_token_id", None)
        return ModelConfig(
            model_type=kind,
            hidden_size=hidden,
            num_layers=self._field(f"{kind}.block_count"),
            num_heads=heads,
            num_kv_heads=self._field(f"{kind}.attention.head_count_kv", heads),
            head_dim=self._field(f"{kind}.attention.key_length", hidden // heads),
            mlp_size=self._field(f"{kind}.feed_forward_length"),
            vocab_size=int(self._tensors["token_embd.weight"].shape[1]),
            max_positions=self._field(f"{kind}.context_length"),
            rms_eps=float(self._field(f"{kind}.attention.layer_norm_rms_epsilon")),
            rope_theta=float(self._field(f"{kind}.rope.freq_base", 10000.0)),
            rope_scaling=self._rope_scaling(),
            tie_embeddings="output.weight" not in self._tensors,
            qk_norm=kind == "qwen3",
            attention_bias="blk.0.attn_q.bias" in self._tensors,
            eos_token_ids=() if end is None else (int(end),),
            bos_token_id=self._field("tokenizer.ggml.bos_token_id", None),
        )

    def _rope_scaling(self) -> dict[str, Any] | None:
        if _ROPE_DIVISORS in self._tensors:  # Llama 3.1 and later: the scaling is written out, one number a frequency
            return {"rope_type": "divisors", "divisors": self._tensors[_ROPE_DIVISORS].data.tolist()}
        kind = self._field(f"{self._architecture}.rope.scaling.type", "none")
        if kind == "none":
            return None
        return {"rope_type": kind, "factor": float(self._field(f"{self._architecture}.rope.scaling.factor", 1.0))}

    def _name_map(self) -> dict[str, str]:
        """Hugging Face name -> GGUF name, for the tensors that are there; others keep their name."""
        pairs = {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in _TOP_PARTS.items()}
        for layer in range(self.config.num_layers):
            for ours, theirs in _LAYER_PARTS.items():
                for kind in ("weight", "bias"):
                    pairs[f"model.layers.{layer}.{ours}.{kind}"] = f"blk.{layer}.{theirs}.{kind}"
        known = {ours: theirs for ours, theirs in pairs.items() if theirs in self._tensors}
        unknown = self._tensors.keys() - set(known.values()) - {_ROPE_DIVISORS}
        return known | {name: name for name in unknown}  # so that left-over tensors are noticed


def _unpermute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo llama.cpp's order of rotary dimensions: it interleaves the two halves of each head."""
    rows = weight.shape[0]
    return weight.view(heads, rows // heads // 2, 2, -1).transpose(1, 2).reshape(weight.shape)
