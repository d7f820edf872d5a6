"""The likeliest token of each row over pieces of the vocabulary, and greedy acceptance.

Reference: `decoding.sampling.likeliest` and `decoding.acceptance.accept_greedy`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ssd_lab.decoding.acceptance import Outcome
from ssd_lab.kernels.triton_ops.launching import launch, pdl_options, start_after_previous

PIECE = 4096  # logits that one program reads


@triton.jit
def _piece_maxima(
    logits_ptr, best_ptr, index_ptr, total_ptr, vocab, stride, pieces, WANT_PROBS: tl.constexpr,
    PIECE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    piece = tl.program_id(1)
    columns = piece * PIECE + tl.arange(0, PIECE)
    inside = columns < vocab
    start_after_previous(PDL)
    logits = tl.load(logits_ptr + row * stride + columns, mask=inside, other=float("-inf")).to(tl.float32)
    best = tl.max(logits, 0)
    first = tl.min(tl.where((logits == best) & inside, columns, vocab), 0)
    tl.store(best_ptr + row * pieces + piece, best)
    tl.store(index_ptr + row * pieces + piece, first)
    if WANT_PROBS:
        base = tl.where(best == float("-inf"), 0.0, best)
        total = tl.sum(tl.where(inside, tl.exp(logits - base), 0.0), 0)
        tl.store(total_ptr + row * pieces + piece, total)


@triton.jit
def _first_of_pieces(
    best_ptr, index_ptr, total_ptr, token_ptr, prob_ptr, vocab, pieces, WANT_PROBS: tl.constexpr,
    BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    piece = tl.arange(0, BLOCK)
    inside = piece < pieces
    start_after_previous(PDL)
    bests = tl.load(best_ptr + row * pieces + piece, mask=inside, other=float("-inf"))
    best = tl.max(bests, 0)
    indices = tl.load(index_ptr + row * pieces + piece, mask=inside, other=vocab)
    token = tl.min(tl.where(bests == best, indices, vocab), 0)
    tl.store(token_ptr + row, tl.minimum(token, vocab - 1).to(tl.int64))  # no logit equals the largest if some are NaN
    if WANT_PROBS:
        totals = tl.load(total_ptr + row * pieces + piece, mask=inside, other=0.0)
        base = tl.where(best == float("-inf"), 0.0, best)
        tl.store(prob_ptr + row, tl.exp(best - base) / tl.sum(totals * tl.exp(bests - base), 0))


def greedy_pick(
    logits: torch.Tensor, *, want_probs: bool, pdl: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """See `Kernels.greedy_pick`. Rows may lie apart; a row itself is dense."""
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    rows, vocab = logits.shape
    pieces = triton.cdiv(vocab, PIECE)
    best = torch.empty(rows, pieces, dtype=torch.float32, device=logits.device)
    index = torch.empty(rows, pieces, dtype=torch.int32, device=logits.device)
    total = torch.empty_like(best) if want_probs else best
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    probs = torch.empty(rows, dtype=torch.float32, device=logits.device) if want_probs else None
    options = {"WANT_PROBS": want_probs, **pdl_options(pdl)}
    launch(
        _piece_maxima, (rows, pieces),
        logits, best, index, total, vocab, logits.stride(0), pieces, PIECE=PIECE, num_warps=8, **options,
    )  # fmt: skip
    launch(
        _first_of_pieces, (rows,),
        best, index, total, tokens, best if probs is None else probs, vocab, pieces,
        BLOCK=triton.next_power_of_2(pieces), num_warps=1, **options,
    )  # fmt: skip
    return tokens, probs


@triton.jit
def _accept_greedy(
    target_ptr, draft_ptr, drafted_ptr, accepted_ptr, recovery_ptr, k, draft_stride, target_stride,
    BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, BLOCK)
    inside = places < k
    start_after_previous(PDL)
    draft = tl.load(draft_ptr + sequence * draft_stride + places, mask=inside, other=-1)
    target = tl.load(target_ptr + sequence * target_stride + places, mask=inside, other=-1)
    kept = inside & (places < tl.load(drafted_ptr + sequence)) & (draft == target)
    accepted = tl.min(tl.where(kept, k, tl.minimum(places, k)), 0)
    tl.store(accepted_ptr + sequence, accepted.to(tl.int64))
    recovery = tl.load(target_ptr + sequence * target_stride + accepted)
    tl.store(recovery_ptr + sequence, recovery.to(tl.int64))


def accept_greedy(
    target_tokens: torch.Tensor, draft_tokens: torch.Tensor, num_drafted: torch.Tensor, *, pdl: bool = False
) -> Outcome:
    """See `decoding.acceptance.accept_greedy`; one launch."""
    target_tokens, draft_tokens = target_tokens.contiguous(), draft_tokens.contiguous()
    num_drafted = num_drafted.contiguous()
    batch, k = draft_tokens.shape
    accepted = torch.empty(batch, dtype=torch.int64, device=target_tokens.device)
    recovery = torch.empty_like(accepted)
    launch(
        _accept_greedy, (batch,),
        target_tokens, draft_tokens, num_drafted, accepted, recovery, k, k, k + 1,
        BLOCK=triton.next_power_of_2(max(1, k)), num_warps=1, **pdl_options(pdl),
    )  # fmt: skip
    return Outcome(accepted, recovery)
