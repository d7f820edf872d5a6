"""The two operations of bulk decoding worth a kernel: attention of one query a row, and drawing one token a row.

Each has a torch version, which runs anywhere and is the reference, and a Triton version for GPUs.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

try:
    from ssd_lab.training import decode_triton
except ImportError:  # no Triton on this machine
    decode_triton = None  # type: ignore[assignment]


@cache
def triton_works(device: str) -> bool:
    """Whether the Triton kernels run on this device and agree with the torch versions."""
    if decode_triton is None or not device.startswith("cuda"):
        return False
    generator = torch.Generator(device).manual_seed(0)
    query = torch.randn(8, 6, 64, device=device, dtype=torch.bfloat16, generator=generator)
    keys = torch.randn(8, 2, 192, 64, device=device, dtype=torch.bfloat16, generator=generator)
    values = torch.randn(8, 2, 192, 64, device=device, dtype=torch.bfloat16, generator=generator)
    length = torch.tensor([0, 1, 31, 63, 64, 65, 127, 191], device=device, dtype=torch.int32)
    try:
        fast = decode_triton.decode_attention(query, keys, values, length, 0.125).float()
        logits = torch.randn(8, 4096, device=device, dtype=torch.bfloat16, generator=generator)
        greedy = decode_triton.sample_tokens(
            logits, torch.zeros(8, device=device), 0.0, torch.zeros(1, dtype=torch.int64, device=device)
        )
    except Exception:  # a compiler that cannot build them is a reason for the slow path, not an error
        return False
    slow = attention_reference(query, keys, values, length, 0.125).float()
    same = bool((logits.gather(1, greedy[:, None])[:, 0] == logits.max(-1).values).all())
    return same and float((fast - slow).norm() / slow.norm()) < 0.02


def decode_attention(query: Tensor, keys: Tensor, values: Tensor, length: Tensor, scale: float) -> Tensor:
    """Attention of one query per row over its cached keys and its own.

    query [rows, heads, head_dim]; keys, values [rows, kv_heads, max_length, head_dim]; length [rows]: the index of
    the row's newest entry. Returns [rows, heads, head_dim].
    """
    if triton_works(str(query.device)):
        return decode_triton.decode_attention(query, keys, values, length, scale)
    return attention_reference(query, keys, values, length, scale)


def attention_reference(query: Tensor, keys: Tensor, values: Tensor, length: Tensor, scale: float) -> Tensor:
    """`decode_attention` in plain torch."""
    rows, heads, head_dim = query.shape
    grouped = query.view(rows, keys.shape[1], -1, head_dim)
    scores = grouped @ keys.transpose(-1, -2) * scale  # [rows, kv_heads, group, max_length]
    visible = torch.arange(keys.shape[2], device=query.device)[None] <= length[:, None]
    scores = scores.masked_fill(~visible[:, None, None], -torch.inf)
    weights = scores.float().softmax(-1).to(query.dtype)
    return (weights @ values).reshape(rows, heads, head_dim)


def sample_tokens(logits: Tensor, temperature: Tensor, min_p: float, step_number: Tensor) -> Tensor:
    """Draw a token per row from logits [rows, vocab]; temperature [rows], 0 for the likeliest. Returns [rows].

    `step_number` [1] int64 seeds the draw and must differ from step to step.
    """
    if triton_works(str(logits.device)):
        return decode_triton.sample_tokens(logits, temperature, min_p, step_number)
    return sample_reference(logits, temperature, min_p)


def sample_reference(logits: Tensor, temperature: Tensor, min_p: float) -> Tensor:
    """`sample_tokens` in plain torch, drawing from torch's global generator."""
    scaled = logits.float() / temperature.clamp_min(1e-4)[:, None]
    scaled = scaled - scaled.max(-1, keepdim=True).values
    floor = math.log(min_p) if min_p > 0 else -torch.inf
    noise = -torch.empty_like(scaled).exponential_().log()  # Gumbel
    noise = torch.where(temperature[:, None] > 0, noise, 0.0)
    return (scaled + noise).masked_fill(scaled < floor, -torch.inf).argmax(-1)
