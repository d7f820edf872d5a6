"""Paged attention over a prefix and tree ancestors: the torch reference, used on the CPU.

A layer's cache is one tensor `[slots, 2 * kv_heads, head_dim]` (K heads, then V heads); slot = block * block_size +
offset.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ssd_lab.kernels.step_input import StepInput

KEY_PADDING = 64  # keys are padded to a multiple, so that sums over them are cut the same way for every context length
KEY_TILE = 128  # in float32 to a multiple of this, and summed in such tiles: the library cuts other sums as it likes
ROW_MULTIPLE = 4  # other numbers of query rows are summed in another order, in both dtypes
FEWEST_ROWS = 8  # 4 too, by MKL without AVX (`MKL_CBWR=COMPATIBLE`)


@dataclass(frozen=True)
class AttentionPlan:
    """Made once per forward, shared by all layers.

    gather: slot of each key `[batch * keys]`. mask: `[batch, 1, group * rows (padded), keys]`, 0 where a row sees a
    key, else the lowest finite number: a row that sees nothing (padding) still gives numbers. write_slots:
    `[batch * rows]`.
    """

    gather: torch.Tensor
    mask: torch.Tensor
    write_slots: torch.Tensor
    batch: int
    rows: int
    keys: int


def plan_attention(step: StepInput, block_size: int, group: int, dtype: torch.dtype) -> AttentionPlan:
    """What all layers of one forward share. group: query heads per K/V head."""
    batch, rows = step.token_ids.shape
    if step.ancestors is not None and step.text_order:
        return _plan_in_text_order(step, step.ancestors, block_size, group, dtype)
    device = step.token_ids.device
    blocks = -(-step.context_length // block_size)
    tables = step.block_tables[:, :blocks]
    offsets = torch.arange(block_size, device=device)
    gather = (tables.unsqueeze(-1) * block_size + offsets).view(batch, -1)
    keys = _padded_keys(gather.shape[1], dtype)
    if keys > gather.shape[1]:
        gather = F.pad(gather, (0, keys - gather.shape[1]))  # slot 0 is the dump: masked for everyone
    if step.ancestors is None:
        hidden = torch.arange(keys, device=device) >= step.prefix_lengths.unsqueeze(-1)  # [batch, rows, keys]
    else:
        hidden = torch.arange(keys + 1, device=device) >= step.prefix_lengths.unsqueeze(-1)
        hidden.scatter_(2, torch.where(step.ancestors < 0, keys, step.ancestors), False)  # padding: the extra column
        hidden = hidden[..., :keys]
    mask = _mask(hidden, group, dtype)
    return AttentionPlan(gather.reshape(-1), mask, step.write_slots.reshape(-1), batch, rows, keys)


def _plan_in_text_order(
    step: StepInput, ancestors: torch.Tensor, block_size: int, group: int, dtype: torch.dtype
) -> AttentionPlan:
    """Every row is a sequence of its own: its prefix, then its ancestors, gathered in this order.

    Sums over keys depend on where the keys lie among the others, so only then has a node the bits that its token would
    have in a chain. The price is a gather for each row instead of one for each sequence.
    """
    batch, rows, depth = ancestors.shape
    keys = _padded_keys(step.context_length, dtype)  # a row sees distinct positions below the context length
    behind = torch.arange(keys, device=ancestors.device) - step.prefix_lengths.unsqueeze(-1)  # [batch, rows, keys]
    further = ancestors.gather(2, behind.clamp(0, depth - 1))
    positions = torch.where(behind < 0, behind + step.prefix_lengths.unsqueeze(-1), further)
    hidden = (behind >= depth) | (positions < 0)
    positions = torch.where(hidden, 0, positions).view(batch, -1)
    blocks = step.block_tables.gather(1, torch.div(positions, block_size, rounding_mode="floor"))
    slots = torch.where(hidden.view(batch, -1), 0, blocks * block_size + positions.remainder(block_size))
    mask = _mask(hidden.view(batch * rows, 1, keys), group, dtype)
    return AttentionPlan(slots.reshape(-1), mask, step.write_slots.reshape(-1), batch * rows, 1, keys)


def _padded_keys(keys: int, dtype: torch.dtype) -> int:
    tile = KEY_TILE if dtype == torch.float32 else KEY_PADDING
    return -(-keys // tile) * tile


def _mask(hidden: torch.Tensor, group: int, dtype: torch.dtype) -> torch.Tensor:
    """`AttentionPlan.mask` from what each row `[batch, rows, keys]` does not see."""
    batch, rows, keys = hidden.shape
    mask = torch.zeros(batch, group, rows, keys, dtype=dtype, device=hidden.device)
    mask = mask.masked_fill_(hidden.unsqueeze(1), torch.finfo(dtype).min).view(batch, 1, group * rows, keys)
    missing = _missing(group * rows)
    return F.pad(mask, (0, 0, 0, missing)) if missing else mask


def _missing(rows: int) -> int:
    """So many rows more make products whose sums are those of any such number of rows."""
    return max(FEWEST_ROWS - rows, -rows % ROW_MULTIPLE)


def write_kv(layer_cache: torch.Tensor, key_values: torch.Tensor, plan: AttentionPlan) -> None:
    """Store K/V `[batch * rows, 2 * kv_heads, head_dim]` at the plan's slots."""
    layer_cache.index_copy_(0, plan.write_slots, key_values)


def paged_attention(queries: torch.Tensor, layer_cache: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
    """Attention of `[batch * rows, heads, head_dim]` over the cache; returns `[batch * rows, heads * head_dim]`.

    Query heads that share a K/V head are rows of one product, so K and V are never repeated.
    """
    heads, head_dim = queries.shape[1:]
    kv_heads = layer_cache.shape[1] // 2
    batch, rows, group = plan.batch, plan.rows, heads // kv_heads
    stored = layer_cache.index_select(0, plan.gather).view(batch, plan.keys, 2 * kv_heads, head_dim).transpose(1, 2)
    grouped = queries.view(batch, rows, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4)
    grouped = grouped.reshape(batch, kv_heads, group * rows, head_dim)
    missing = _missing(group * rows)
    if missing:
        grouped = F.pad(grouped, (0, 0, 0, missing))
    keys, values = stored[:, :kv_heads], stored[:, kv_heads:]
    if queries.dtype == torch.float32:
        attended = _tiled_attention(grouped, keys, values, plan.mask)
    else:
        attended = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=plan.mask)
    attended = attended[:, :, : group * rows].view(batch, kv_heads, group, rows, head_dim).permute(0, 3, 1, 2, 4)
    return attended.reshape(batch * rows, heads * head_dim)


def _tiled_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Attention `[batch, kv_heads, n, head_dim]` whose bits for a row do not depend on n, batch or the padding of keys.

    Measured in float32 on the CPU: the fused operation depends on them, and so do plain products of fewer than 4 rows,
    and those over a number of keys that varies. So every sum here is over one tile of exactly KEY_TILE keys (a tile
    that a row does not see adds zeros), and tiles are added from the first to the last.
    """
    scores = torch.matmul(queries, keys.transpose(-1, -2)).mul_(queries.shape[-1] ** -0.5).add_(mask)
    weights = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    totals = weights.unflatten(-1, (-1, KEY_TILE)).sum(-1)  # [batch, kv_heads, n, tiles]
    summed = torch.matmul(weights[..., :KEY_TILE], values[:, :, :KEY_TILE])
    total = totals[..., :1]
    for tile in range(1, keys.shape[2] // KEY_TILE):
        here = slice(tile * KEY_TILE, (tile + 1) * KEY_TILE)
        summed = summed.add_(torch.matmul(weights[..., here], values[:, :, here]))
        total = total + totals[..., tile : tile + 1]
    return summed.div_(total)
