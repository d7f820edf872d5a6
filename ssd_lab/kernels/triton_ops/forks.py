"""Branches of an asynchronous tree: the likeliest recovery tokens, which are prepared, and which one answers.

Reference: `decoding.tree.recovery_candidates`, and `fork` and `find_branch` of `decoding.branches`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from ssd_lab.decoding import tree
from ssd_lab.decoding.branches import Fork, Found
from ssd_lab.kernels.triton_ops.launching import launch, pdl_options, start_after_previous

PIECES = 64  # of the vocabulary


def recovery_candidates(logits: torch.Tensor, draft_tokens: torch.Tensor, count: int) -> torch.Tensor:
    """See `decoding.tree.recovery_candidates`: first those of each piece, then those among them. For whole rows the
    library's `topk` takes over twenty launches, one after the other.
    """
    batch, lengths, vocab = logits.shape
    size = triton.cdiv(vocab, PIECES)
    if size < count:
        return tree.recovery_candidates(logits, draft_tokens, count)
    open_logits = F.pad(logits, (0, PIECES * size - vocab), value=float("-inf"))
    open_logits = open_logits.clone() if PIECES * size == vocab else open_logits
    open_logits[:, : lengths - 1].scatter_(-1, draft_tokens.unsqueeze(-1), float("-inf"))
    best, at = open_logits.view(batch, lengths, PIECES, size).topk(count, sorted=False)
    at += size * torch.arange(PIECES, device=logits.device)[:, None]
    return at.flatten(2).gather(-1, best.flatten(2).topk(count).indices)


@triton.jit
def _fork(
    candidates_ptr, counts_ptr, logits_ptr, choices_ptr, choice_probs_ptr, prefixes_ptr, recovery_ptr, keys_ptr,
    probs_ptr, branches, lengths, kept, vocab, WANT_PROBS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    branch = tl.arange(0, BLOCK)
    inside = branch < branches
    start_after_previous(PDL)
    prefix = tl.zeros([BLOCK], tl.int64)
    first = tl.zeros([BLOCK], tl.int64)  # branch at this accepted length
    end = tl.zeros([BLOCK], tl.int64)
    for length in range(lengths - 1):
        end += tl.load(counts_ptr + row * lengths + length)
        prefix += (branch >= end).to(tl.int64)
        first = tl.where(branch >= end, end, first)
    place = row * lengths + prefix
    recovery = tl.load(candidates_ptr + place * kept + branch - first, mask=inside & (branch - first < kept), other=0)
    at = row * branches + branch
    tl.store(prefixes_ptr + at, prefix, mask=inside)
    tl.store(recovery_ptr + at, recovery, mask=inside)
    tl.store(keys_ptr + at, (prefix << 32) + recovery, mask=inside)
    if WANT_PROBS:
        best = tl.load(choices_ptr + place, mask=inside, other=0)
        own = tl.load(logits_ptr + place * vocab + recovery, mask=inside, other=0.0)
        highest = tl.load(logits_ptr + place * vocab + best, mask=inside, other=0.0)
        prob = tl.exp(own - highest) * tl.load(choice_probs_ptr + place, mask=inside, other=0.0)
        tl.store(probs_ptr + at, prob, mask=inside)


def fork(
    candidates: torch.Tensor,
    counts: torch.Tensor,
    branches: int,
    logits: torch.Tensor,
    choices: torch.Tensor | None = None,
    choice_probs: torch.Tensor | None = None,
    *,
    pdl: bool = False,
) -> Fork:
    """See `decoding.branches.fork`."""
    batch, lengths, kept = candidates.shape
    prefixes, recovery, keys = torch.empty(3, batch, branches, dtype=torch.int64, device=counts.device).unbind()
    wanted, probs = choice_probs is not None, None
    if choices is None or choice_probs is None:
        choices, choice_probs = candidates, logits  # in their place, never read
    if wanted:
        probs = torch.empty(batch, branches, dtype=torch.float32, device=counts.device)
    given = [tensor.contiguous() for tensor in (candidates, counts, logits, choices, choice_probs)]
    launch(
        _fork, (batch,),
        *given, prefixes, recovery, keys, logits if probs is None else probs,
        branches, lengths, kept, logits.shape[-1], WANT_PROBS=wanted,
        BLOCK=triton.next_power_of_2(branches), num_warps=1, **pdl_options(pdl),
    )  # fmt: skip
    return Fork(prefixes, recovery, keys, probs)


@triton.jit
def _find_branch(
    prepared_ptr, outcomes_ptr, counts_ptr, hit_ptr, answered_ptr, branch_ptr, branches, prepared_stride,
    outcome_stride, lengths, HAS_COUNTS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    branch = tl.arange(0, BLOCK)
    start_after_previous(PDL)
    accepted = tl.load(outcomes_ptr + row * outcome_stride)
    key = (accepted << 32) + tl.load(outcomes_ptr + row * outcome_stride + 1)
    prepared = tl.load(prepared_ptr + row * prepared_stride + branch, mask=branch < branches, other=-1)
    hit = tl.max((prepared == key).to(tl.int32), 0)
    found = tl.min(tl.where(prepared == key, branch, BLOCK), 0) % BLOCK
    answered = hit
    if HAS_COUNTS:
        first = 0
        for length in range(accepted):
            first += tl.load(counts_ptr + row * lengths + length).to(tl.int32)
        at = tl.load(counts_ptr + row * lengths + accepted)
        answered = hit | (at > 0).to(tl.int32)
        found = tl.where(hit > 0, found, tl.minimum(first, branches - 1))
    tl.store(hit_ptr + row, hit > 0)
    tl.store(answered_ptr + row, answered > 0)
    tl.store(branch_ptr + row, found.to(tl.int64))


def find_branch(
    prepared: torch.Tensor, outcomes: torch.Tensor, counts: torch.Tensor | None, *, pdl: bool = False
) -> Found:
    """See `decoding.branches.find_branch`."""
    rows, branches = prepared.shape
    prepared = prepared if prepared.stride(1) == 1 else prepared.contiguous()
    outcomes = outcomes if outcomes.stride(1) == 1 else outcomes.contiguous()
    hit, answered = torch.empty(2, rows, dtype=torch.bool, device=prepared.device).unbind()
    branch = torch.empty(rows, dtype=torch.int64, device=prepared.device)
    launch(
        _find_branch, (rows,),
        prepared, outcomes, prepared if counts is None else counts.contiguous(), hit, answered, branch,
        branches, prepared.stride(0), outcomes.stride(0), 0 if counts is None else counts.shape[1],
        HAS_COUNTS=counts is not None, BLOCK=triton.next_power_of_2(branches), num_warps=1, **pdl_options(pdl),
    )  # fmt: skip
    return Found(hit, answered, branch)
