"""What a round needs besides forwards, each in one launch: against the plain versions, at the edges too."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import random

from ssd_lab.decoding.acceptance import accept_greedy
from ssd_lab.decoding.branches import find_branch, fork
from ssd_lab.decoding.decision import GreedyVerification, greedy_decision
from ssd_lab.decoding.tree import recovery_candidates
from ssd_lab.kernels.interface import Kernels
from ssd_lab.kernels.places import causal_places


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("block_size", "count"), [(16, 1), (16, 5), (3, 300), (16, 0)])
def test_places_of_consecutive_tokens(
    triton_kernels: Kernels, device: torch.device, block_size: int, count: int
) -> None:
    """Also of those before a text's first token, and behind its table."""
    starts = torch.tensor([0, 7, -1, -2, 100])
    tables = torch.randint(1, 50, (5, 9))[:, :8]
    places = triton_kernels.causal_places(starts.to(device), count, tables.to(device), block_size)
    for own, expected in zip(places, causal_places(starts, count, tables, block_size), strict=True):
        assert own.dtype == torch.int64 and torch.equal(own.cpu(), expected)


@pytest.mark.parametrize("k", [0, 1, 4, 9])
@pytest.mark.parametrize("knows_probs", [True, False])
def test_a_greedy_decision(triton_kernels: Kernels, device: torch.device, k: int, knows_probs: bool) -> None:
    """All accepted, none, some; rows of padding; numbers that are none, in the target and in the draft."""
    rows, vocab = 7, 300
    logits = random((rows, k + 1, vocab), k)
    choices = logits.argmax(-1)
    choice_probs = torch.softmax(logits, -1).amax(-1)
    drafted = choices[:, :k].clone()
    drafted[1:3, k // 2 :] = (drafted[1:3, k // 2 :] + 1) % vocab
    token_probs = torch.rand(rows, k) if knows_probs else None
    choice_probs[3, k] = torch.nan
    if token_probs is not None and k:
        token_probs[4, 0], token_probs[5, -1] = torch.inf, torch.nan
    num_drafted = torch.full((rows,), k)
    num_drafted[6] = 0
    lengths, last = torch.tensor([5, 9, 1, 30, 2, 7, 0]), torch.randint(vocab, (rows,))
    given = (logits, choices, choice_probs, drafted, token_probs, lengths, last)
    expected = greedy_decision(GreedyVerification(accept_greedy(choices, drafted, num_drafted), *given))
    on_device = [None if one is None else one.to(device) for one in given]
    outcome = triton_kernels.accept_greedy(on_device[1], on_device[3], num_drafted.to(device))
    decision = triton_kernels.greedy_decision(GreedyVerification(outcome, *on_device))
    assert torch.equal(decision.integers.cpu(), expected.integers)
    assert torch.equal(decision.advanced.cpu(), expected.advanced)
    torch.testing.assert_close(decision.numbers.cpu(), expected.numbers, rtol=1e-5, atol=1e-7, equal_nan=True)
    assert expected.integers[:, 0].unique().numel() > 1 or k == 0


@pytest.mark.parametrize(("vocab", "count"), [(70, 64), (4096, 3), (9001, 64)])
def test_recovery_candidates(triton_kernels: Kernels, device: torch.device, vocab: int, count: int) -> None:
    """The same as torch where no logits are equal, and never the token that was drafted."""
    k = 3
    logits = torch.stack([torch.randperm(vocab).view(1, -1).expand(k + 1, -1) for _ in range(2)]).float() - vocab / 2
    logits = torch.stack([logits[:, place].roll(place, -1) for place in range(k + 1)], 1)
    drafted = logits[:, :k].argmax(-1)
    found = triton_kernels.recovery_candidates(logits.to(device), drafted.to(device), count)
    assert torch.equal(found.cpu(), recovery_candidates(logits, drafted, count))
    assert not (found.cpu()[:, :k] == drafted.unsqueeze(-1)).any()


@pytest.mark.parametrize("wants_probs", [True, False])
def test_a_fork(triton_kernels: Kernels, device: torch.device, wants_probs: bool) -> None:
    rows, k, vocab, branches = 4, 3, 500, 6
    logits = random((rows, k + 1, vocab), 1)
    candidates = logits.topk(8, -1).indices
    counts = torch.tensor([[3, 1, 1, 1], [0, 0, 0, 6], [6, 0, 0, 0], [1, 0, 4, 1]])
    choices = (logits.argmax(-1), torch.softmax(logits, -1).amax(-1)) if wants_probs else (None, None)
    expected = fork(candidates, counts, branches, logits, *choices)
    on_device = [None if one is None else one.to(device) for one in choices]
    made = triton_kernels.fork(candidates.to(device), counts.to(device), branches, logits.to(device), *on_device)
    for name in ("prefixes", "recovery", "keys"):
        assert torch.equal(getattr(made, name).cpu(), getattr(expected, name)), name
    if not wants_probs:
        assert made.recovery_probs is None
        return
    every = torch.arange(rows)[:, None]
    softmax = torch.softmax(logits.double(), -1)[every, expected.prefixes, expected.recovery]
    torch.testing.assert_close(made.recovery_probs.cpu().double(), softmax, rtol=1e-5, atol=0)


@pytest.mark.parametrize("stale", [True, False])
def test_which_branch_answers(triton_kernels: Kernels, device: torch.device, stale: bool) -> None:
    rows, k, branches = 40, 3, 5
    counts = torch.stack([torch.bincount(torch.randint(k + 1, (branches,)), minlength=k + 1) for _ in range(rows)])
    counts[0] = torch.tensor([2, 2, 1, 0])  # no branch at the largest length
    candidates = torch.stack([torch.randperm(12) for _ in range(rows * (k + 1))]).view(rows, k + 1, 12)
    keys = fork(candidates, counts, branches, candidates).keys
    outcomes = torch.stack([torch.randint(k + 1, (rows,)), torch.randint(12, (rows,)), torch.full((rows,), 99)], 1)
    outcomes[0, 0] = k
    expected = find_branch(keys, outcomes[:, :2], counts if stale else None)
    given = counts.to(device) if stale else None
    found = triton_kernels.find_branch(keys.to(device), outcomes.to(device)[:, :2], given)
    assert torch.equal(found.hit.cpu(), expected.hit) and torch.equal(found.answered.cpu(), expected.answered)
    answered = expected.answered
    assert torch.equal(found.branch.cpu()[answered], expected.branch[answered])
    assert answered.any() and not answered.all() and found.hit.dtype == torch.bool
    for own in (found, expected):  # whoever takes it reads the tree, whatever becomes of that
        assert (own.branch < branches).all()
