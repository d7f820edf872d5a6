"""Triton versions of the bulk decoding operations; `decode_ops` holds their meaning and reference."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _attention_kernel(  # type: ignore[no-untyped-def]
    query_ptr,
    key_ptr,
    value_ptr,
    length_ptr,
    out_ptr,
    scale,
    max_length,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    count = tl.load(length_ptr + row) + 1
    group = tl.arange(0, 16)  # the matrix units need 16 rows; those beyond GROUP are idle
    dims = tl.arange(0, HEAD_DIM)
    block = tl.arange(0, BLOCK)
    query_offset = (row * KV_HEADS * GROUP + head * GROUP + group[:, None]) * HEAD_DIM + dims[None, :]
    query = tl.load(query_ptr + query_offset, mask=group[:, None] < GROUP, other=0.0)
    base = (row * KV_HEADS + head) * max_length * HEAD_DIM
    best = tl.full([16], float("-inf"), tl.float32)
    total = tl.zeros([16], tl.float32)
    acc = tl.zeros([16, HEAD_DIM], tl.float32)
    for begin in range(0, count, BLOCK):
        index = begin + block
        inside = index < count
        offset = base + index[:, None] * HEAD_DIM + dims[None, :]
        key = tl.load(key_ptr + offset, mask=inside[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(key)) * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        new_best = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp(scores - new_best[:, None])
        shrink = tl.exp(best - new_best)
        value = tl.load(value_ptr + offset, mask=inside[:, None], other=0.0)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None] + tl.dot(weights.to(value.dtype), value)
        best = new_best
    out = acc / total[:, None]
    tl.store(out_ptr + query_offset, out.to(out_ptr.dtype.element_ty), mask=group[:, None] < GROUP)


def decode_attention(query: Tensor, keys: Tensor, values: Tensor, length: Tensor, scale: float) -> Tensor:
    """See `decode_ops.decode_attention`; all tensors contiguous."""
    rows, heads, head_dim = query.shape
    kv_heads, max_length = keys.shape[1], keys.shape[2]
    query = query.contiguous()
    out = torch.empty_like(query)
    _attention_kernel[(rows, kv_heads)](
        query,
        keys,
        values,
        length,
        out,
        scale,
        max_length,
        KV_HEADS=kv_heads,
        GROUP=heads // kv_heads,
        HEAD_DIM=head_dim,
        BLOCK=64,
        num_warps=2,
    )
    return out


@triton.jit
def _sample_kernel(  # type: ignore[no-untyped-def]
    logits_ptr, temperature_ptr, step_ptr, out_ptr, floor, vocab, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    line = logits_ptr + row.to(tl.int64) * vocab
    temperature = tl.load(temperature_ptr + row)
    seed = tl.load(step_ptr)
    columns = tl.arange(0, BLOCK)
    running_max = tl.full([BLOCK], float("-inf"), tl.float32)
    for begin in range(0, vocab, BLOCK):
        index = begin + columns
        logits = tl.load(line + index, mask=index < vocab, other=float("-inf")).to(tl.float32)
        running_max = tl.maximum(running_max, logits)
    top = tl.max(running_max, 0)
    inverse = 1.0 / tl.maximum(temperature, 1e-4)
    best_score = tl.full([BLOCK], float("-inf"), tl.float32)
    best_index = tl.zeros([BLOCK], tl.int32)
    for begin in range(0, vocab, BLOCK):
        index = begin + columns
        logits = tl.load(line + index, mask=index < vocab, other=float("-inf")).to(tl.float32)
        scaled = (logits - top) * inverse
        uniform = tl.maximum(tl.rand(seed, row * vocab + index), 1e-10)
        noise = -tl.log(-tl.log(uniform))
        score = scaled + tl.where(temperature > 0, noise, 0.0)
        score = tl.where(scaled >= floor, score, float("-inf"))
        better = score > best_score
        best_index = tl.where(better, index, best_index)
        best_score = tl.where(better, score, best_score)
    winner = tl.argmax(best_score, 0)
    chosen = tl.sum(tl.where(columns == winner, best_index, 0), 0)
    tl.store(out_ptr + row, chosen.to(tl.int64))


def sample_tokens(logits: Tensor, temperature: Tensor, min_p: float, step_number: Tensor) -> Tensor:
    """See `decode_ops.sample_tokens`."""
    rows, vocab = logits.shape
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    floor = math.log(min_p) if min_p > 0 else -1e30
    _sample_kernel[(rows,)](logits.contiguous(), temperature, step_number, out, floor, vocab, BLOCK=2048, num_warps=8)
    return out
