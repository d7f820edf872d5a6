"""What a greedy verification comes to, in one launch. Reference: `decoding.decision.greedy_decision`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ssd_lab.decoding.decision import GreedyDecision, GreedyVerification
from ssd_lab.kernels.triton_ops.launching import launch, pdl_options, start_after_previous

COLUMNS = 4  # integers ahead of the draft tokens


@triton.jit
def _is_number(value):
    return (value == value) & (tl.abs(value) != float("inf"))


@triton.jit
def _greedy_decision(
    accepted_ptr, recovery_ptr, logits_ptr, choices_ptr, choice_probs_ptr, draft_ptr, token_probs_ptr, lengths_ptr,
    last_ptr, integers_ptr, numbers_ptr, advanced_ptr, k, vocab, batch, columns, HAS_PROBS: tl.constexpr,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    drafted, every = place < k, place <= k
    start_after_previous(PDL)
    accepted = tl.load(accepted_ptr + row)
    recovery = tl.load(recovery_ptr + row)
    token = tl.load(draft_ptr + row * k + place, mask=drafted, other=0)
    scores = row * (k + 1) + place
    choice = tl.load(choices_ptr + scores, mask=every, other=0)
    choice_prob = tl.load(choice_probs_ptr + scores, mask=every, other=0.0)
    own = tl.load(logits_ptr + scores * vocab + token, mask=drafted, other=0.0)
    best = tl.load(logits_ptr + scores * vocab + choice, mask=drafted, other=0.0)
    numbers = numbers_ptr + row * columns
    tl.store(numbers + place, tl.exp(own - best) * choice_prob, mask=drafted)
    tl.store(numbers + k, tl.load(choice_probs_ptr + row * (k + 1) + accepted))
    total = 0.0
    if HAS_PROBS:
        token_prob = tl.load(token_probs_ptr + row * k + place, mask=drafted, other=0.0)
        tl.store(numbers + k + 1 + place, token_prob, mask=drafted)
        total = tl.sum(token_prob, 0)
    integers = integers_ptr + row * (COLUMNS + k)
    tl.store(integers, accepted)
    tl.store(integers + 1, recovery)
    tl.store(integers + 2, tl.min(_is_number(choice_prob).to(tl.int64), 0))
    tl.store(integers + 3, _is_number(total).to(tl.int64))
    tl.store(integers + COLUMNS + place, token, mask=drafted)
    length = tl.load(lengths_ptr + row)
    previous = tl.load(draft_ptr + row * k + accepted - 1, mask=accepted > 0, other=0)
    tl.store(advanced_ptr + row, tl.where(length > 0, length + accepted + 1, 0))
    tl.store(advanced_ptr + batch + row, tl.where(accepted > 0, previous, tl.load(last_ptr + row)))
    tl.store(advanced_ptr + 2 * batch + row, recovery)


def greedy_decision(verified: GreedyVerification, *, pdl: bool = False) -> GreedyDecision:
    """See `decoding.decision.greedy_decision`."""
    outcome, logits, choices, choice_probs, draft_tokens, token_probs, lengths, last_tokens = verified
    batch, k = draft_tokens.shape
    columns = k + 1 if token_probs is None else 2 * k + 1
    device = logits.device
    integers = torch.empty(batch, COLUMNS + k, dtype=torch.int64, device=device)
    numbers = torch.empty(batch, columns, dtype=torch.float32, device=device)
    advanced = torch.empty(3, batch, dtype=torch.int64, device=device)
    given = [
        *(outcome.num_accepted, outcome.recovery_token, logits, choices, choice_probs, draft_tokens),
        *(choice_probs if token_probs is None else token_probs, lengths, last_tokens),
    ]
    launch(
        _greedy_decision, (batch,),
        *(tensor.contiguous() for tensor in given), integers, numbers, advanced,
        k, logits.shape[-1], batch, columns, HAS_PROBS=token_probs is not None, COLUMNS=COLUMNS,
        BLOCK=triton.next_power_of_2(k + 1), num_warps=1, **pdl_options(pdl),
    )  # fmt: skip
    return GreedyDecision(integers, numbers, advanced)
