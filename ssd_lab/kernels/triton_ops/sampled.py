"""Drawing tokens by inverting cumulative sums, and sampled acceptance (arXiv 2211.17192).

Reference: `decoding.sampling.sample` and `decoding.acceptance.accept_sampled`. Two launches: sums of pieces of the
vocabulary, then one program a row finds the piece and the token in it. The residual max(p - q, 0) is never stored, and
which tokens are accepted is worked out wherever it is needed: it takes k numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ssd_lab.decoding.acceptance import Outcome
from ssd_lab.kernels.triton_ops.greedy import accept_greedy
from ssd_lab.kernels.triton_ops.launching import launch, pdl_options, start_after_previous

PIECE = 1024  # probabilities that one program sums


@triton.jit
def _num_accepted(
    p_ptr, q_ptr, draft_ptr, drawn_ptr, drafted_ptr, uniform_ptr, sequence, k, vocab, BLOCK: tl.constexpr,
):  # fmt: skip
    """Length of the accepted run of a sequence, and how many tokens were drafted."""
    places = tl.arange(0, BLOCK)
    drafted = tl.load(drafted_ptr + sequence).to(tl.int32)
    inside = (places < k) & (places < drafted)
    tokens = tl.load(draft_ptr + sequence * k + places, mask=inside, other=0).to(tl.int64)
    p = tl.load(p_ptr + (sequence * (k + 1) + places) * vocab + tokens, mask=inside, other=0.0)
    q = tl.load(q_ptr + (sequence * k + places) * vocab + tokens, mask=inside, other=0.0)
    uniforms = tl.load(uniform_ptr + sequence * k + places, mask=inside, other=0.0)
    drawn = tl.load(drawn_ptr + sequence * (k + 1) + places, mask=inside, other=-1)
    kept = inside & (((q == 1.0) & (drawn == tokens)) | ((q != 1.0) & (uniforms * q < p)))
    return tl.min(tl.where(kept, k, tl.minimum(places, k)), 0), drafted


@triton.jit
def _weights(p_ptr, q_ptr, sequence, accepted, k, vocab, columns, inside):
    """p at the place after the accepted run, and max(p - q, 0) there if a draft token stands at that place."""
    p = tl.load(p_ptr + (sequence * (k + 1) + accepted) * vocab + columns, mask=inside, other=0.0)
    has_draft = accepted < k
    q = tl.load(q_ptr + (sequence * k + accepted) * vocab + columns, mask=inside & has_draft, other=0.0)
    difference = p - q
    return p, tl.where(difference < 0, 0.0, difference)


@triton.jit
def _sums(
    p_ptr, q_ptr, draft_ptr, drawn_ptr, drafted_ptr, uniform_ptr, accepted_ptr, sum_ptr, residual_ptr, k, vocab, pieces,
    VERIFIES: tl.constexpr, PLACES: tl.constexpr, PIECE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Sum of p, and of the residual, over each piece of the vocabulary. Grid: (sequence, piece)."""
    sequence = tl.program_id(0).to(tl.int64)
    piece = tl.program_id(1)
    columns = piece * PIECE + tl.arange(0, PIECE)
    inside = columns < vocab
    start_after_previous(PDL)
    if VERIFIES:
        accepted, _ = _num_accepted(
            p_ptr, q_ptr, draft_ptr, drawn_ptr, drafted_ptr, uniform_ptr, sequence, k, vocab, PLACES
        )
        if piece == 0:
            tl.store(accepted_ptr + sequence, accepted.to(tl.int64))
        p, residual = _weights(p_ptr, q_ptr, sequence, accepted, k, vocab, columns, inside)
        tl.store(residual_ptr + sequence * pieces + piece, tl.sum(residual, 0))
    else:
        p = tl.load(p_ptr + sequence * vocab + columns, mask=inside, other=0.0)
    tl.store(sum_ptr + sequence * pieces + piece, tl.sum(p, 0))


@triton.jit
def _first_above(weights, threshold, size, BLOCK: tl.constexpr):
    """First place whose weight is positive and whose cumulative sum exceeds the threshold, and the sum before it.

    Where rounding leaves none: the last place with a positive weight. Where there is no such place: `size`.
    """
    places = tl.arange(0, BLOCK)
    cumulative = tl.cumsum(weights, 0)
    positive = weights > 0
    first = tl.min(tl.where(positive & (cumulative > threshold), places, size), 0)
    last = tl.max(tl.where(positive, places, -1), 0)
    place = tl.where(first < size, first, tl.where(last < 0, size, last))
    before = tl.sum(tl.where(places == place, cumulative - weights, 0.0), 0)
    return place, before


@triton.jit
def _draw(
    p_ptr, q_ptr, draft_ptr, drafted_ptr, accepted_ptr, uniform_ptr, sum_ptr, residual_ptr, token_ptr, k, vocab,
    pieces, VERIFIES: tl.constexpr, PIECE: tl.constexpr, PIECES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Find the piece, then the token. Grid: (sequence,)."""
    sequence = tl.program_id(0).to(tl.int64)
    piece_places = tl.arange(0, PIECES)
    in_pieces = piece_places < pieces
    start_after_previous(PDL)
    sums = tl.load(sum_ptr + sequence * pieces + piece_places, mask=in_pieces, other=0.0)
    uniform_place = sequence
    accepted = 0
    from_residual = False
    if VERIFIES:
        accepted = tl.load(accepted_ptr + sequence)
        uniform_place = sequence * (k + 1) + accepted
        residuals = tl.load(residual_ptr + sequence * pieces + piece_places, mask=in_pieces, other=0.0)
        # p = q up to rounding leaves nothing to draw from; a rejection is then as likely as rounding itself
        # and where the guess was certain the target's own draw stands
        rejected = accepted < tl.load(drafted_ptr + sequence)
        guess = tl.load(draft_ptr + sequence * k + accepted, mask=rejected, other=0)
        own = tl.load(q_ptr + (sequence * k + accepted) * vocab + guess, mask=rejected, other=1.0)
        from_residual = rejected & (own != 1.0) & (tl.sum(residuals, 0) > 0)
        sums = tl.where(from_residual, residuals, sums)
    threshold = tl.load(uniform_ptr + uniform_place) * tl.sum(sums, 0)
    piece, before = _first_above(sums, threshold, pieces, PIECES)
    piece = tl.minimum(piece, pieces - 1)
    columns = piece * PIECE + tl.arange(0, PIECE)
    inside = columns < vocab
    if VERIFIES:
        p, residual = _weights(p_ptr, q_ptr, sequence, accepted, k, vocab, columns, inside)
        weights = tl.where(from_residual, residual, p)
    else:
        weights = tl.load(p_ptr + sequence * vocab + columns, mask=inside, other=0.0)
    place, _ = _first_above(weights, threshold - before, PIECE, PIECE)
    tl.store(token_ptr + sequence, tl.minimum(piece * PIECE + place, vocab - 1).to(tl.int64))


@dataclass(frozen=True)
class _Verification:
    """What acceptance needs besides the target's probabilities."""

    draft_tokens: torch.Tensor
    draft_probs: torch.Tensor
    drawn: torch.Tensor
    num_drafted: torch.Tensor
    accept_uniforms: torch.Tensor


def _run(
    probs: torch.Tensor, draw_uniforms: torch.Tensor, verification: _Verification | None, batch: int, *, pdl: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Accepted lengths (unset without a verification) and drawn tokens, both `[batch]`."""
    vocab = probs.shape[-1]
    pieces = triton.cdiv(vocab, PIECE)
    accepted = torch.empty(batch, dtype=torch.int64, device=probs.device)
    tokens = torch.empty_like(accepted)
    sums = torch.empty(2, batch, pieces, dtype=torch.float32, device=probs.device)
    k = 0 if verification is None else verification.draft_tokens.shape[1]
    unused = probs
    drafts = unused if verification is None else verification.draft_tokens
    drafted = unused if verification is None else verification.num_drafted
    accept_uniforms = unused if verification is None else verification.accept_uniforms
    q = unused if verification is None else verification.draft_probs
    drawn = unused if verification is None else verification.drawn
    options = {"VERIFIES": verification is not None, "PIECE": PIECE, **pdl_options(pdl)}
    launch(
        _sums, (batch, pieces),
        probs, q, drafts, drawn, drafted, accept_uniforms, accepted, sums[0], sums[1], k, vocab, pieces,
        PLACES=triton.next_power_of_2(max(1, k)), num_warps=4, **options,
    )  # fmt: skip
    launch(
        _draw, (batch,),
        probs, q, drafts, drafted, accepted, draw_uniforms, sums[0], sums[1], tokens, k, vocab, pieces,
        PIECES=triton.next_power_of_2(pieces), num_warps=4, **options,
    )  # fmt: skip
    return accepted, tokens


def sample(probs: torch.Tensor, uniforms: torch.Tensor, *, pdl: bool = False) -> torch.Tensor:
    """See `Kernels.sample`; probs float32."""
    return _run(probs.contiguous(), uniforms.contiguous(), None, probs.shape[0], pdl=pdl)[1]


def accept_sampled(
    target_probs: torch.Tensor,
    draft_tokens: torch.Tensor,
    draft_probs: torch.Tensor | None,
    num_drafted: torch.Tensor,
    accept_uniforms: torch.Tensor,
    recovery_uniforms: torch.Tensor,
    *,
    pdl: bool = False,
) -> Outcome:
    """See `Kernels.accept_sampled`; probabilities float32."""
    batch, k = draft_tokens.shape
    target_probs, recovery_uniforms = target_probs.contiguous(), recovery_uniforms.contiguous()
    drawn = sample(target_probs.flatten(0, 1), recovery_uniforms.flatten(), pdl=pdl).view(batch, k + 1)
    if draft_probs is None or k == 0:
        return accept_greedy(drawn, draft_tokens, num_drafted, pdl=pdl)
    verification = _Verification(
        draft_tokens.contiguous(),
        draft_probs.contiguous(),
        drawn,
        num_drafted.contiguous(),
        accept_uniforms.contiguous(),
    )
    return Outcome(*_run(target_probs, recovery_uniforms, verification, batch, pdl=pdl))
