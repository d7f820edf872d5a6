"""Weights, config and tokenizer of a GGUF file (llama.cpp's format)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.families import FAMILIES
from ssd_lab.models.files.weights import Choose, part_of
from ssd_lab.models.gguf.config import ROPE_DIVISORS, read_gguf_config
from ssd_lab.models.gguf.reading import open_parts
from ssd_lab.models.gguf.tokenizer import GgufTokenizer
from ssd_lab.models.text.tokenizer import Tokenizer

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


class GgufFile:
    """A GGUF file as a checkpoint: names and shapes as in the Hugging Face checkpoint it came from."""

    def __init__(self, path: Path) -> None:
        import gguf

        self._path = path
        self._dequantize = gguf.quants.dequantize
        parts = open_parts(path)
        self._reader = parts[0]
        self._tensors = {tensor.name: tensor for part in parts for tensor in part.tensors}
        wanted = [key for key in self._reader.fields if not key.startswith("tokenizer.") or key.endswith("_token_id")]
        entries = {key: self._field(key) for key in wanted}
        self.config = read_gguf_config(entries, self._tensors, str(path))
        self._gguf_name = self._name_map()

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._gguf_name)

    def read(self, name: str) -> torch.Tensor:
        """One tensor, dequantised to float32."""
        tensor = self._tensors[self._gguf_name[name]]
        values = self._dequantize(tensor.data, tensor.tensor_type)
        result = torch.from_numpy(np.array(values, dtype=np.float32))
        heads = {"q_proj": self.config.num_heads, "k_proj": self.config.num_kv_heads}
        part = re.search(r"self_attn\.(q_proj|k_proj)\.", name)
        if part and FAMILIES.of(self.config.model_type).gguf_interleaves:
            return _unpermute(result, heads[part.group(1)])
        return result

    def read_part(self, name: str, dim: int, choose: Choose) -> torch.Tensor:
        """A part of one tensor, of which all is dequantised, since blocks of numbers belong together."""
        return part_of(self.read(name), dim, choose).clone()

    def place(self, name: str) -> str:
        """The file, and what the tensor is called in it."""
        return f"{self._path} ({self._gguf_name.get(name, name)})"

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

    def _name_map(self) -> dict[str, str]:
        """Hugging Face name -> GGUF name, for the tensors that are there; others keep their name."""
        pairs = {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in _TOP_PARTS.items()}
        for layer in range(self.config.num_layers):
            for ours, theirs in _LAYER_PARTS.items():
                for kind in ("weight", "bias"):
                    pairs[f"model.layers.{layer}.{ours}.{kind}"] = f"blk.{layer}.{theirs}.{kind}"
        known = {ours: theirs for ours, theirs in pairs.items() if theirs in self._tensors}
        unknown = self._tensors.keys() - set(known.values()) - {ROPE_DIVISORS}
        return known | {name: name for name in unknown}  # so that left-over tensors are noticed


def _unpermute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo llama.cpp's order of rotary dimensions: it interleaves the two halves of each head."""
    rows = weight.shape[0]
    return weight.view(heads, rows // heads // 2, 2, -1).transpose(1, 2).reshape(weight.shape)
