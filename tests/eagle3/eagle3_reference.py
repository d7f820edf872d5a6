"""An EAGLE3 head written again from its description, one token at a time, sharing no code with the package."""

from __future__ import annotations

import math

import torch


class Reference:
    """Feeds rows one by one; keeps every key and value in plain lists. Tensors are named without a layer prefix."""

    def __init__(
        self,
        tensors: dict[str, torch.Tensor],
        *,
        embedding: torch.Tensor,
        heads: int,
        kv_heads: int,
        head_dim: int,
        theta: float,
        eps: float,
        residual_after_norm: bool = False,
        carry_normed: bool = False,
        num_layers: int = 1,
    ) -> None:
        self.t, self.embedding = tensors, embedding
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.theta, self.eps = theta, eps
        self.residual_after_norm, self.carry_normed = residual_after_norm, carry_normed
        self.num_layers = num_layers

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.pow(2).mean() + self.eps).sqrt() * self.t[name]

    def combine(self, parts: list[torch.Tensor]) -> torch.Tensor:
        if "fc_norm.0.weight" in self.t:
            parts = [self.norm(part, f"fc_norm.{i}.weight") for i, part in enumerate(parts)]
        joined = torch.cat(parts)
        if "input_norm.weight" in self.t:
            joined = self.norm(joined, "input_norm.weight")
        return self.t["fc.weight"] @ joined

    def rotate(self, head: torch.Tensor, position: int) -> torch.Tensor:
        half = self.head_dim // 2
        out = head.clone()
        for i in range(half):
            angle = position * self.theta ** (-2 * i / self.head_dim)
            cos, sin = math.cos(angle), math.sin(angle)
            out[i] = head[i] * cos - head[i + half] * sin
            out[i + half] = head[i + half] * cos + head[i] * sin
        return out

    def step(
        self, token: int, feature: torch.Tensor, position: int, history: list[list[tuple]]
    ) -> tuple[torch.Tensor, torch.Tensor, list[list[tuple]]]:
        """(logits over the draft vocabulary, what to carry on, the history with this row added)."""
        hidden = feature
        grown = []
        for layer in range(self.num_layers):
            name = f"layer.{layer}."
            if layer == 0:
                normed = self.norm(hidden, name + "hidden_norm.weight")
                inputs = torch.cat([self.norm(self.embedding[token], name + "input_layernorm.weight"), normed])
                residual = normed if self.residual_after_norm else hidden
            else:
                inputs = self.norm(hidden, name + "input_layernorm.weight")
                residual = hidden
            attended, rows = self._attention(name, inputs, position, history[layer] if history else [])
            grown.append(rows)
            hidden = residual + attended
            x = self.norm(hidden, name + "post_attention_layernorm.weight")
            gate, up = self.t[name + "mlp.gate_proj.weight"] @ x, self.t[name + "mlp.up_proj.weight"] @ x
            hidden = hidden + self.t[name + "mlp.down_proj.weight"] @ (gate * torch.sigmoid(gate) * up)
        final = self.norm(hidden, "norm.weight")
        return self.t["lm_head.weight"] @ final, (final if self.carry_normed else hidden), grown

    def _project(self, name: str, which: str, x: torch.Tensor) -> torch.Tensor:
        out = self.t[f"{name}self_attn.{which}_proj.weight"] @ x
        bias = self.t.get(f"{name}self_attn.{which}_proj.bias")
        return out if bias is None else out + bias

    def _attention(
        self, name: str, x: torch.Tensor, position: int, before: list[tuple]
    ) -> tuple[torch.Tensor, list[tuple]]:
        query = self._project(name, "q", x).view(self.heads, -1)
        key = self._project(name, "k", x).view(self.kv_heads, -1)
        value = self._project(name, "v", x).view(self.kv_heads, -1)
        if f"{name}self_attn.q_norm.weight" in self.t:
            query = torch.stack([self.norm(head, f"{name}self_attn.q_norm.weight") for head in query])
            key = torch.stack([self.norm(head, f"{name}self_attn.k_norm.weight") for head in key])
        query = torch.stack([self.rotate(head, position) for head in query])
        key = torch.stack([self.rotate(head, position) for head in key])
        rows = [*before, (key, value)]
        out = []
        for head in range(self.heads):
            shared = head // (self.heads // self.kv_heads)
            scores = torch.stack([query[head] @ k[shared] for k, _ in rows]) / self.head_dim**0.5
            weights = scores.softmax(0)
            out.append(sum(w * v[shared] for w, (_, v) in zip(weights, rows, strict=True)))
        return self._project(name, "o", torch.cat(out)), rows
